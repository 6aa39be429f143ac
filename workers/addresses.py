"""Where webhooks may be sent: URLs without tricks, and addresses that the whole world has. Opens
nothing and asks no resolver."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from penstock.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL: Final = 2_048  # characters
MAX_HOST: Final = 253
PLAIN: Final = re.compile(r"[!#-;=?-\[\]-~]+")  # no space, control, quote, < > or backslash
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
FIRST_FREE_PORT: Final = 1_024  # below it live services that understand too much of a POST
LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
LOOPBACK: Final = ipaddress.IPv4Address("127.0.0.1")
#: What `is_global` lets through: ways from IPv6 to IPv4 addresses that it does not look at, and
#: what is not in use as an address of one machine.
NEVER: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
)
UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # all that is routed in the world


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was let through."""

    scheme: str
    host: str  #: a name, or an address without brackets
    port: int
    path: str  #: with its query
    authority: str  #: as the Host header says it


@dataclass(frozen=True, slots=True)
class Policy:
    """`networks`: addresses that are sent to although they are not public."""

    networks: tuple[Network, ...] = ()

    def parse(self, url: str, param: str = "url") -> Target:
        """Raises `InvalidRequest`, naming `param`, for a URL that nothing is sent to. Whether its
        host has a public address is known only when that is looked up."""
        try:
            return self._parse(url)
        except ValueError as error:
            raise InvalidRequest(f"`{param}`: {error}.", param=param) from None

    def allows(self, address: Address) -> bool:
        """Whether this address may be connected to."""
        if any(address in network for network in self.networks):
            return True
        if not address.is_global or any(address in network for network in NEVER):
            return False
        return address.version == 4 or address in UNICAST

    def _parse(self, url: str) -> Target:
        # urlsplit drops some characters without a word, so they are looked at first.
        if len(url) > MAX_URL or not PLAIN.fullmatch(url):
            raise ValueError(
                f"It has to be ASCII without spaces and backslashes, at most {MAX_URL} characters"
            )
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS:
            raise ValueError("It has to begin with http:// or https://")
        if "@" in parts.netloc:
            raise ValueError("It must not hold a user or a password")
        host = (parts.hostname or "").removesuffix(".")
        self._check_host(host)
        port = _port(parts)
        name = f"[{host}]" if ":" in host else host
        return Target(
            scheme=parts.scheme,
            host=host,
            port=port,
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            authority=name if port == DEFAULT_PORTS[parts.scheme] else f"{name}:{port}",
        )

    def _check_host(self, host: str) -> None:
        address = _literal(host)
        if address is None:
            labels = host.split(".")
            if len(host) > MAX_HOST or not all(LABEL.fullmatch(label) for label in labels):
                raise ValueError("It has no valid host")
            address = LOOPBACK if labels[-1].lower() == "localhost" else None
        if address is not None and not self.allows(address):
            raise ValueError("Its address is not public")


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises ValueError for what is no network."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def _port(parts: SplitResult) -> int:
    default = DEFAULT_PORTS[parts.scheme]
    port = default if parts.port is None else parts.port
    if port < FIRST_FREE_PORT and port not in DEFAULT_PORTS.values():
        raise ValueError("Its port has to be 80, 443, or 1024 and above")
    return port


def _literal(host: str) -> Address | None:
    """The address that a host spells, in all ways that a resolver understands; None for a name."""
    if ":" in host:
        if "%" in host:
            raise ValueError("It has no valid host")
        return ipaddress.IPv6Address(host)
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 0x7f.1, 2130706433, 0177.0.0.1
    except OSError:
        return None
