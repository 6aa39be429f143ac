"""Clients that keep posting jobs and reading their results through every outage, and write down
what they were told. They know the API alone."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from models.fake import CRASH, MEMORY, WORDS

#: The last two are for the fake model alone.
KINDS = ("plain", "plain", "plain", "large", "cancel", "expire", "invalid", "poison", "memory")
MOST_OPEN = 12  #: jobs that wait at once, so that what is broken shows within the run
LAST_WORD = 60.0  #: seconds after the last fault in which a post has to be accepted
FINISHED = ("completed", "failed", "cancelled", "expired")


@dataclass
class Job:
    """One that was accepted. `poison`: positions that kill their worker; `reopened`: a client asks
    for its failures once more."""

    id: str
    kind: str
    prompts: list[str]
    poison: frozenset[int] = frozenset()
    reopened: bool = False
    callback: str | None = None  #: who is told of its end
    seen: dict[int, str | None] = field(default_factory=dict)  #: outcomes that a client read
    status: str = "queued"

    def echo(self, position: int) -> str:
        """What the fake model answers."""
        return " ".join(["echo:", *self.prompts[position].split()[:WORDS]])


class Book:
    """What the clients were told, for all of them. `echoes`: the model is the fake one, whose
    answers are known. `callbacks`: where jobs may have their end told."""

    def __init__(self, *, echoes: bool, callbacks: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self.echoes = echoes
        self.callbacks = callbacks
        self.jobs: dict[str, Job] = {}
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    def accept(self, job: Job) -> None:
        with self._lock:
            if job.id in self.jobs:
                self.wrong.append(f"{job.id} was given to two jobs")
            self.jobs[job.id] = job

    def answered(self, what: str, status: int | str) -> None:
        with self._lock:
            self.answers[f"{what} {status}"] += 1
            if isinstance(status, int) and status >= 500 and status != 503:
                self.wrong.append(f"{what} was answered by {status}")

    def open(self) -> list[Job]:
        with self._lock:
            return [job for job in self.jobs.values() if job.status not in FINISHED]

    def any(self, draw: random.Random) -> Job | None:
        with self._lock:
            return draw.choice(list(self.jobs.values())) if self.jobs else None

    def some(self, draw: random.Random, most: int, *, finished: bool) -> list[Job]:
        """Jobs that have ended, or not, as far as was told."""
        with self._lock:
            known = [j for j in self.jobs.values() if (j.status in FINISHED) is finished]
            return draw.sample(known, min(most, len(known)))

    def note(self, job: Job, answer: dict[str, Any]) -> None:
        """Compare an answer with what was read before, and with what is right."""
        with self._lock:
            offset = answer.get("offset") or 0
            outcomes: dict[int, str | None] = {
                offset + n: text
                for n, text in enumerate(answer.get("responses") or ())
                if text is not None
            }
            outcomes |= {error["index"]: None for error in answer.get("errors") or ()}
            for position, text in outcomes.items():
                before = job.seen.setdefault(position, text)
                if before is None and job.reopened:  # what had failed may have been tried again
                    job.seen[position] = text
                elif before != text:
                    self.wrong.append(f"{job.id}[{position}] changed after it was read")
                if self.echoes and text is not None and text != job.echo(position):
                    self.wrong.append(f"{job.id}[{position}] has another's answer: {text!r}")
            if job.status in FINISHED and answer["status"] != job.status and not job.reopened:
                self.wrong.append(f"{job.id} was {job.status} and is {answer['status']}")
            job.status = answer["status"]


class Client(threading.Thread):
    """One that posts, reads and chats at random."""

    def __init__(self, url: str, book: Book, seed: int, stopping: threading.Event) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self._draw = random.Random(seed)
        self._http = httpx2.Client(base_url=url, timeout=30)
        self._book = book
        self._stopping = stopping
        self._seed = seed
        self._numbers = itertools.count(1)

    def run(self) -> None:
        while not self._stopping.is_set():
            choice = self._draw.random()
            if choice < 0.35 and len(self._book.open()) < MOST_OPEN:
                self._post()
            elif choice < 0.5:
                self._chat()
            elif (job := self._book.any(self._draw)) is not None:
                self.read(job)
            self._stopping.wait(self._draw.uniform(0.05, 0.4))

    def read(self, job: Job) -> None:
        """A page, or what there is of all."""
        pages: list[dict[str, Any]] = [{"partial": "true"}, {"offset": 0, "limit": 50}, {}]
        answer = self._ask(
            "GET", f"/batch-result/{job.id}", "read", params=self._draw.choice(pages)
        )
        if answer is not None and answer.status_code == 200:
            self._book.note(job, answer.json())

    def _post(self) -> None:
        kinds = KINDS if self._book.echoes else KINDS[:-2]
        self.post(self._draw.choice(kinds))

    def post(self, kind: str) -> None:
        """Until the service has answered: the key makes that safe."""
        tag = f"c{self._seed}j{next(self._numbers)}"
        job, body = self._made(kind, tag)
        ended = 0.0
        while True:
            headers = {"Idempotency-Key": tag}
            answer = self._ask("POST", "/batch-generate", "post", json=body, headers=headers)
            if answer is not None and answer.status_code == 202:
                break
            if self._stopping.is_set() and not ended:
                ended = time.monotonic()
            if ended and time.monotonic() > ended + LAST_WORD:
                self._book.wrong.append(f"{tag} was not accepted in {LAST_WORD:.0f} quiet seconds")
                return
            time.sleep(0.5)
        job.id = answer.json()["request_id"]
        self._book.accept(job)
        if job.kind == "cancel":
            self._stopping.wait(self._draw.uniform(0, 3))
            self.cancel(job)
        if job.reopened:
            self._stopping.wait(self._draw.uniform(0, 3))
            self.retry(job)

    def cancel(self, job: Job) -> None:
        self._ask("POST", f"/batch-generate/{job.id}/cancel", "cancel")

    def retry(self, job: Job) -> None:
        """Refused while the job has not ended."""
        job.reopened = True
        self._ask("POST", f"/batch-generate/{job.id}/retry-failed", "retry")

    def _made(self, kind: str, tag: str) -> tuple[Job, dict[str, Any]]:
        draw = self._draw
        count = draw.randint(200, 600) if kind == "large" else draw.randint(1, 60)
        prompts = [f"{tag} row {n} of {count}" for n in range(count)]
        job = Job("", kind, prompts)
        body: dict[str, Any] = {"messages": prompts, "max_tokens": 16, "temperature": 0}
        if draw.random() < 0.5:
            body["callback_url"] = job.callback = draw.choice(self._book.callbacks)
        one = draw.randrange(count)
        if kind == "poison":
            job.poison = frozenset({one})
            prompts[one] += f" {CRASH}"
        elif kind == "memory":
            prompts[one] += f" {MEMORY}"
        elif kind == "invalid":
            prompts[one] = ""
            job.reopened = draw.random() < 0.5
        elif kind == "expire":
            body["expires_in"] = draw.randint(1, 8)
        return job, body

    def _chat(self) -> None:
        message = f"hello {self._seed} {self._draw.randrange(10**9)}"
        body = {"message": message, "max_tokens": 16, "temperature": 0}
        answer = self._ask("POST", "/chat", "chat", json=body)
        if answer is not None and answer.status_code == 200:
            response = answer.json()["response"]
            if self._book.echoes and response != f"echo: {message}":
                self._book.wrong.append(f"a chat was answered by {response!r}")

    def _ask(self, method: str, path: str, what: str, **parts: Any) -> httpx2.Response | None:
        began = time.monotonic()
        try:
            answer = self._http.request(method, path, **parts)
        except httpx2.TimeoutException:
            self._book.answered(what, "no answer in 30 s")
            self._book.wrong.append(f"{what}: no answer in {time.monotonic() - began:.0f} s")
            return None
        except httpx2.HTTPError as error:
            self._book.answered(what, type(error).__name__)
            return None
        self._book.answered(what, answer.status_code)
        return answer
