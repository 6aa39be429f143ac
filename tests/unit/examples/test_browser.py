"""The page's JavaScript, run by node where there is one; and the server in front of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.service import Service, listen, serving
from tests.unit.client.test_streams import chat

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "examples" / "browser" / "penstock.mjs"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="there is no node to run JavaScript with")

CUT_ANYWHERE = """
import { events } from %s;
const bytes = new TextEncoder().encode(%s);
for (let size = 1; size <= bytes.length; size++) {
  const stream = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size)
        controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
  const found = [];
  for await (const event of events(stream)) found.push(event.content);
  if (JSON.stringify(found) !== '["ü\\u2028","two"]') throw new Error(size + JSON.stringify(found));
}
console.log("whole");
"""
TALK = """
import { chat } from %s;
for await (const piece of chat("hello", {}, %s)) console.log(piece);
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [NODE or "", "--input-type=module", "--eval", program]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service(), listen()) as running:
        yield running


@needs_node
def test_events_are_read_wherever_the_stream_is_cut() -> None:
    sent = ": ping\n\nid: 1\ndata: " + json.dumps({"content": "ü\u2028"}, ensure_ascii=False)
    sent += '\n\ndata: {"content":\ndata: "two"}\n\n'

    done = run(CUT_ANYWHERE % (json.dumps(str(MODULE)), json.dumps(sent)))

    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


@needs_node
def test_a_reply_is_read_in_pieces_and_an_error_is_thrown(service: Service) -> None:
    service.streams.append(chat("start") + chat("chunk", "one") + chat("error", "It failed."))

    done = run(TALK % (json.dumps(str(MODULE)), json.dumps(service.url)))

    assert done.stdout == "one\n"
    assert "Error: It failed." in done.stderr


def test_page_and_service_have_one_origin_and_the_key_stays_behind(service: Service) -> None:
    command = [sys.executable, "-m", "examples.browser.serve", service.url, "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PENSTOCK_API_KEY": "secret"},
        stdout=subprocess.PIPE,
        text=True,
    ) as front:
        try:
            assert front.stdout is not None
            url = front.stdout.readline().split()[1].rstrip("/")
            with httpx2.Client(base_url=url, trust_env=False) as browser:
                page, module = browser.get("/"), browser.get("/penstock.mjs")
                posted = browser.post("/batch-generate", json={"messages": ["a"]})
                missing = browser.get("/batch-result/none")
                foreign = browser.get("/batch-result/none", headers={"Host": "evil.example:80"})
        finally:
            front.terminate()

    assert "penstock.mjs" in page.text
    assert module.headers["Content-Type"] == "text/javascript"
    assert (posted.status_code, posted.json()["request_id"]) == (202, "batch_1")
    assert (missing.status_code, foreign.status_code) == (404, 403)
    assert service.seen[0].headers["authorization"] == "Bearer secret"
