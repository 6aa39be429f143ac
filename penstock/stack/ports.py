"""Free ports, looked for before anything starts. Knows nothing of who will listen."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from penstock.errors import StackError


def claim_ports(wanted: dict[str, tuple[str, int]]) -> dict[str, int]:
    """For each option its (host, port): the port, or a free one for 0.

    Raises StackError naming the option whose port is taken. A port is free at the moment of the
    look; who listens a moment later still may find it taken.
    """
    ports: dict[str, int] = {}
    with ExitStack() as held:  # all at once, so that no two get the same
        for option, (host, port) in wanted.items():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # As servers do: a port whose last connections linger in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise StackError(
                    f"Port {port} on {host} cannot be used ({reason}); "
                    f"choose another with {option}, or 0 for a free one."
                ) from error
            ports[option] = int(probe.getsockname()[1])
    return ports
