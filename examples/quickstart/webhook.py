"""Receives a webhook, and believes only what the service has signed.

WEBHOOK_SECRET=whsec_… python -m examples.quickstart.webhook 9000

Then post a job with `"callback_url": "http://this-machine:9000/"`. Ends after the first event.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from penstock import webhooks
from penstock.webhooks import InvalidSignature

MAX_BODY = 100_000  # bytes; an event has some hundred


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to an event, 400 to anything else."""

    timeout = 10  # seconds; a sender that dawdles does not hold the next one up for longer
    received = False

    def do_POST(self) -> None:
        """Take one event."""
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY))
        try:
            event = webhooks.verify(body, dict(self.headers), os.environ["WEBHOOK_SECRET"])
        except InvalidSignature as error:
            self.send_error(400, error.message)
            return
        self.send_response(204)  # first: the sender does not wait for our work
        self.end_headers()
        print(f"{event.type}: {event.data.id}", flush=True)
        Receiver.received = True


def main(port: str = "9000") -> None:
    """Listen until an event has come."""
    with HTTPServer(("127.0.0.1", int(port)), Receiver) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
        while not Receiver.received:
            server.handle_request()


if __name__ == "__main__":
    main(*sys.argv[1:2])
