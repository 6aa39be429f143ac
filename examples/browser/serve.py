"""Serves the page and passes everything else on to the service, so that both have one origin.

The API key, if there is one, stays here: PENSTOCK_API_KEY. For this machine only.

python -m examples.browser.serve              # or: … serve http://host:port 8080
"""

import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

FOLDER = Path(__file__).parent
OWN = {"/": "index.html", "/penstock.mjs": "penstock.mjs"}
PASSED_ON = ("content-type", "idempotency-key", "last-event-id", "accept")
NAMES = ("127.0.0.1", "localhost")
MAX_BODY = 10_000_000  # bytes


class Front(SimpleHTTPRequestHandler):
    """One request. Answers are passed on as they come, streams included."""

    def __init__(self, service: httpx2.Client, *arguments: Any) -> None:
        self._service = service
        super().__init__(*arguments, directory=str(FOLDER))

    def do_GET(self) -> None:
        """The page, or what the service says."""
        if self.path in OWN:
            self.path = "/" + OWN[self.path]
            super().do_GET()
        else:
            self.do_POST()

    def do_POST(self) -> None:
        """What the service says."""
        size = int(self.headers.get("Content-Length", 0))
        if self.headers.get("Host", "").rpartition(":")[0] not in NAMES:
            self.send_error(403)  # another site has made its name point here, to use the key
            return
        if size > MAX_BODY:
            self.send_error(413)
            return
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        body = self.rfile.read(size)
        try:
            with self._service.stream(
                self.command, self.path, headers=headers, content=body
            ) as answer:
                self._pass_on(answer)
        except ConnectionError:
            pass  # the page was left; so is the answer
        except httpx2.TransportError:
            self.send_error(502)

    def _pass_on(self, answer: httpx2.Response) -> None:
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.end_headers()
        for piece in answer.iter_raw():
            self.wfile.write(piece)


def main(url: str = "http://127.0.0.1:8000", port: str = "8080") -> None:
    """Serve until Ctrl-C."""
    key = os.environ.get("PENSTOCK_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with (
        httpx2.Client(base_url=url, headers=headers, timeout=60) as service,
        ThreadingHTTPServer(("127.0.0.1", int(port)), partial(Front, service)) as server,
    ):
        print(f"Open http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("Bye.")


if __name__ == "__main__":
    main(*sys.argv[1:3])
