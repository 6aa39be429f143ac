"""`/batch-result/{id}/events`: each result once, from wherever a client goes on."""

from __future__ import annotations

from itertools import islice

import httpx2

from tests.contract.streams.conftest import Stack
from tests.contract.support import settle
from tests.support import jobs
from tests.support.events import Event, read_events
from tests.support.workers import Jobs

PROMPTS = 300


def _events(
    stack: Stack, job: str, last: str | None = None, most: int | None = None
) -> list[Event]:
    headers = {} if last is None else {"Last-Event-ID": last}
    path = f"/batch-result/{job}/events"
    with stack.client() as client, client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        return list(islice(read_events(answer.iter_lines()), most))


def _results(events: list[Event]) -> dict[int, str]:
    found = [event.data for event in events if event.name == "result"]
    shown = {data["index"]: data["response"] for data in found}
    assert len(shown) == len(found)
    return shown


def test_a_job_is_told_as_it_goes_and_resumed_without_a_hole(stack: Stack) -> None:
    job = Jobs(stack.database).post(PROMPTS)

    begun = _events(stack, job, most=40)
    ids = [event.id for event in begun if event.name == "result"]
    *rest, end = _events(stack, job, ids[-1])

    first, second = _results(begun), _results(rest)
    assert not first.keys() & second.keys()
    assert first | second == {n: f"echo: prompt {n}" for n in range(PROMPTS)}
    assert begun[0].name == "progress"
    assert begun[0].data.keys() == {"total", "completed", "failed"}
    assert (end.name, end.id) == ("end", "end")
    assert (end.data["status"], end.data["progress"]["completed"]) == ("completed", PROMPTS)
    answer = httpx2.get(f"{stack.url}/batch-result/{job}/events", headers={"Last-Event-ID": "end"})
    assert answer.status_code == 204


def test_what_failed_has_its_reason_and_scores_their_detail(stack: Stack) -> None:
    body = {"messages": ["", "good"], "mode": "score", "choices": ["good", "bad"]}
    job = httpx2.post(f"{stack.url}/batch-generate", json=body).json()["request_id"]

    events = _events(stack, job)

    failed, scored = (event.data for event in events if event.name == "result")
    assert (failed["index"], failed["response"]) == (0, None)
    assert failed["error"] == {"code": "empty_prompt", "message": "The prompt is empty."}
    assert scored["response"] in ("good", "bad")
    assert scored["detail"]["probabilities"].keys() == {"good", "bad"}


def test_counted_prompts_are_told_with_their_tokens_and_equal_ones_as_such(stack: Stack) -> None:
    count = {"messages": ["one", "two"], "mode": "count", "choices": ["a", "bc"]}
    equal = {"messages": ["same", "same"], "temperature": 0}
    told = []
    for body in (count, equal):
        job = httpx2.post(f"{stack.url}/batch-generate", json=body).json()["request_id"]
        told.append([event.data for event in _events(stack, job) if event.name == "result"])

    counted, answered = told
    assert [(one["response"], one["completion_tokens"]) for one in counted] == [("", 0)] * 2
    assert all(one["prompt_tokens"] > 3 for one in counted)
    assert counted[0]["detail"] == {"choices": {"a": [97], "bc": [98, 99]}}
    assert sorted(one.get("from_cache", False) for one in answered) == [False, True]


def test_a_cancelled_job_ends_its_stream(stack: Stack) -> None:
    job = jobs.store(stack.database, 3, model="served-by-nobody").id
    httpx2.post(f"{stack.url}/batch-generate/{job}/cancel")
    settle(stack.database)

    events = _events(stack, job)

    assert [event.name for event in events] == ["progress", "result", "result", "result", "end"]
    assert events[-1].data["status"] == "cancelled"
