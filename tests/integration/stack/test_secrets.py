"""Planted secrets, and every place where whoever runs or watches the stack could read them."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from redis import Redis

from tests.integration.stack.conftest import Up, until

pytestmark = pytest.mark.slow
Start = Callable[..., Up]

DATABASE, BROKER, KEY = "planted-database-4f1c", "planted-broker-99ab", "planted-key-77d0"
FLOWER, TOKEN, PROMPT = "planted-flower-31ee", "hf_planted5d2a", "planted-prompt-c0de"
KEY_SECRET = "planted-key-secret-of-some-length-9d2e"
SECRETS = (DATABASE, BROKER, KEY, KEY_SECRET, FLOWER, TOKEN, PROMPT)
#: Whose environment holds what it needs.
HOLDERS = {
    DATABASE: {"up", "api", "dispatcher", "worker"},
    BROKER: {"up", "api", "dispatcher", "worker", "flower"},
    KEY: {"up", "api"},
    KEY_SECRET: {"up", "api"},
    FLOWER: {"up", "flower"},
    TOKEN: {"up", "worker"},
    PROMPT: set(),
}


@dataclass
class Answer:
    status: int
    body: str


def get(url: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Answer(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(errors="replace"))


@pytest.fixture
def stack(up: Start, database_url: str, redis_socket: Path) -> Iterator[Up]:
    """On stores with passwords, which has run a job of secret prompts."""
    # PostgreSQL trusts whoever reaches its socket; the URL holds a password all the same.
    database = database_url.replace("postgres@", f"postgres:{DATABASE}@")
    with Redis(unix_socket_path=str(redis_socket)) as client:
        client.acl_setuser(
            "planted",
            enabled=True,
            passwords=[f"+{BROKER}"],
            keys=["*"],
            channels=["*"],
            commands=["+@all"],
        )
        yield up(
            environment={
                "PENSTOCK_DATABASE__URL": database,
                "PENSTOCK_BROKER__URL": f"redis+socket://planted:{BROKER}@{redis_socket}",
                "PENSTOCK_API__KEYS": KEY,
                "PENSTOCK_API__KEY_SECRET": KEY_SECRET,
                "PENSTOCK_FLOWER__BASIC_AUTH": f"watcher:{FLOWER}",
                "PENSTOCK_LOG__LEVEL": "INFO",
                "HF_TOKEN": TOKEN,
                "FLOWER_UNAUTHENTICATED_API": "true",
            }
        )
        client.acl_deluser("planted")


def test_no_secret_is_told_to_anybody_who_has_no_need_of_it(stack: Up) -> None:
    _run_jobs(stack)

    texts = dict(_pages_of_flower(stack) | _answers_of_the_api(stack))
    processes = _processes(stack)
    commands = {f"command of {name}": " ".join(p.cmdline()) for name, p in processes.items()}
    environments = {name: str(process.environ()) for name, process in processes.items()}
    stack.stop()
    logs = {str(path): path.read_text() for path in stack.data.rglob("*") if path.is_file()}
    logs["what it printed"] = stack.output()

    assert any("shard.finished" in text for text in logs.values())
    places = {**texts, **commands, **logs}
    told = {
        (secret, place) for place, text in places.items() for secret in SECRETS if secret in text
    }
    assert told == set()
    for secret, holders in HOLDERS.items():
        assert {name for name, text in environments.items() if secret in text} == holders, secret


def _run_jobs(stack: Up) -> None:
    """One that ends well, one with prompts that fail, a chat; all with secret texts."""
    good = stack.ask("/batch-generate", {"messages": [PROMPT] * 70, "system": PROMPT})
    bad = {"messages": [f"{PROMPT}\0", f"{PROMPT} " * 6_000, PROMPT], "max_tokens": 4}
    mixed = stack.ask("/batch-generate", bad)
    assert stack.finish_job(str(good["request_id"]))["status"] == "completed"
    assert stack.finish_job(str(mixed["request_id"]))["progress"]["failed"] == 2
    assert PROMPT in stack.ask("/chat", {"message": PROMPT})["response"]


def _pages_of_flower(stack: Up) -> dict[str, str]:
    """Every page and answer, and that none of them is an order."""
    url = stack.facts["flower_url"]
    login = base64.b64encode(f"watcher:{FLOWER}".encode()).decode()
    known = {"Authorization": f"Basic {login}"}
    for page in ("/", "/tasks", "/api/tasks", "/api/workers"):
        assert get(url + page).status == 401, page
    tasks, workers = _seen(f"{url}/api/tasks", known), _seen(f"{url}/api/workers?refresh=1", known)
    task, worker = next(iter(tasks)), quote(next(iter(workers)))
    for order in (
        f"task/revoke/{task}",
        f"task/timeout/{task}",
        f"task/rate-limit/{task}",
        f"task/abort/{task}",
        "task/apply/penstock.generate",
        "task/async-apply/penstock.generate",
        "task/send-task/penstock.generate",
        *(f"worker/pool/{what}/{worker}" for what in ("grow", "shrink", "restart", "autoscale")),
        f"worker/shutdown/{worker}",
        f"worker/queue/cancel-consumer/{worker}",
    ):
        assert get(f"{url}/api/{order}", known, b"{}").status == 403, order
    pages = (
        *("/", "/workers", f"/worker/{worker}", "/tasks", f"/task/{task}", "/broker", "/metrics"),
        *("/api/tasks", "/api/workers?refresh=1", "/api/task/types", "/api/queues/length"),
        *(f"/api/task/info/{task}", f"/api/task/result/{task}", "/healthcheck", "/no-such-page"),
    )
    answers = {page: get(url + page, known) for page in pages}
    assert answers[f"/worker/{worker}"].status == answers[f"/task/{task}"].status == 200
    return {f"flower {page}": answer.body for page, answer in answers.items()}


def _seen(url: str, known: dict[str, str]) -> dict[str, object]:
    """What Flower has heard of, once it has."""
    found: dict[str, object] = {}

    def heard() -> bool:
        found.update(json.loads(get(url, known).body))
        return bool(found)

    until(f"Flower shows {url}", heard)
    return found


def _answers_of_the_api(stack: Up) -> dict[str, str]:
    """What it says of itself, and of what it refuses."""
    url, known = stack.facts["api_url"], {"Authorization": f"Bearer {KEY}"}
    asked = {page: get(url + page, known) for page in ("/metrics", "/stats", "/health", "/readyz")}
    assert {answer.status for answer in asked.values()} == {200}
    refused: list[tuple[str, object]] = [
        ("/batch-generate", {"messages": [PROMPT], "max_tokens": PROMPT}),
        ("/batch-generate", {"messages": {"text": PROMPT}}),
        ("/batch-generate", {"messages": [PROMPT], "response_format": {"type": PROMPT}}),
        ("/batch-generate", [PROMPT]),
        ("/chat", {"message": PROMPT, "temperature": -1}),
        ("/chat", {"message": PROMPT, "conversation_id": PROMPT, "n": PROMPT}),
        (f"/batch-generate/{DATABASE[:7]}/cancel", {}),
    ]
    for number, (path, body) in enumerate(refused):
        answer = get(url + path, known, json.dumps(body).encode())
        assert 400 <= answer.status < 500, (path, answer)
        asked[f"refusal {number} of {path}"] = answer
    asked["broken"] = get(f"{url}/chat", known, f'{{"message": "{PROMPT}'.encode())
    for wrong in (f"Bearer {KEY}x", f"Basic {KEY}", ""):
        asked[f"stranger {wrong[:6]}"] = get(f"{url}/stats", {"Authorization": wrong})
    return {f"api {name}": answer.body for name, answer in asked.items()}


def _processes(stack: Up) -> dict[str, psutil.Process]:
    pids = {"up": stack.facts["pid"], **stack.facts["children"]}
    return {name: psutil.Process(pid) for name, pid in pids.items()}
