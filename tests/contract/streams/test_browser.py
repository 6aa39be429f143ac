"""A browser's own `EventSource` and WebSocket, in headless Chromium."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.app import create_app
from tests.contract.conftest import CONFIG
from tests.contract.streams.conftest import Stack
from tests.contract.support import serving
from workers.queues import WakeUps

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions")
PAGE = """<!doctype html><script type="module">
const seen = {chat: [], job: [], socket: []};
const report = () => fetch("/report", {method: "POST", body: JSON.stringify(seen)});
const asJson = {"Content-Type": "application/json"};

async function chat() {
  const body = JSON.stringify({message: "one two three four", temperature: 0, wait: false});
  const asked = await fetch("/chat/stream", {method: "POST", headers: asJson, body});
  const source = new EventSource(`/chat/stream/${(await asked.json()).request_id}`);
  return new Promise(done => source.onmessage = event => {
    const data = JSON.parse(event.data);
    seen.chat.push([event.lastEventId, data.type, data.content]);
    if (data.type === "end") { source.close(); done(); }
  });
}
async function job() {
  const body = JSON.stringify({messages: ["a", "b", "c"]});
  const asked = await fetch("/batch-generate", {method: "POST", headers: asJson, body});
  const source = new EventSource(`/batch-result/${(await asked.json()).request_id}/events`);
  source.addEventListener("result", event => seen.job.push(JSON.parse(event.data).response));
  // It is left open on purpose: the browser comes back, and is told that it is over.
  let ended = false;
  source.addEventListener("end", () => ended = true);
  return new Promise(done => source.onerror = () => {
    if (ended && source.readyState === EventSource.CLOSED) done();
  });
}
async function socket() {
  const opened = new WebSocket(`ws://${location.host}/ws/chat/browser/1`);
  opened.onopen = () => opened.send("hello");
  return new Promise(done => opened.onmessage = event => {
    const data = JSON.parse(event.data);
    seen.socket.push(data.content);
    if (data.type === "end") { opened.close(); done(); }
  });
}
Promise.all([chat(), job(), socket()]).catch(error => seen.error = String(error)).finally(report);
</script>"""


def _browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is on PATH: apt-get install chromium")
    return found


def test_a_browser_reads_a_chat_a_job_and_a_socket(
    stack: Stack, redis_url_kept: str, tmp_path: Path
) -> None:
    browser = _browser()
    reports: queue.Queue[dict[str, Any]] = queue.Queue()

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def report(request: Request) -> Response:
        reports.put(json.loads(await request.body()))
        return Response()

    wake_ups = WakeUps(redis_url_kept, "streams:")
    app = create_app(CONFIG, stack.database, wake_ups)
    app.add_route("/page", page)
    app.add_route("/report", report, methods=["POST"])
    with serving(app) as url:
        home = f"--user-data-dir={tmp_path}"
        command = [browser, *OPTIONS, home, "--remote-debugging-port=0", f"{url}/page"]
        running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            seen = reports.get(timeout=60)
        finally:
            running.terminate()
            running.wait(timeout=20)
    wake_ups.close()

    assert "error" not in seen
    types = [kind for _, kind, _ in seen["chat"]]
    assert (types[0], types[-1], set(types[1:-1])) == ("start", "end", {"chunk"})
    assert "".join(content for _, _, content in seen["chat"]) == "echo: one two three four"
    assert all(id for id, _, _ in seen["chat"])
    assert sorted(seen["job"]) == ["echo: a", "echo: b", "echo: c"]
    assert "".join(seen["socket"]) == "echo: hello"
