"""One job: its progress, its answers, and what can be asked of it. Knows routes, not transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from penstock.client.connection import Call, Connection, Repeat
from penstock.errors import PromptError
from penstock.schemas.batch import BatchResult, PromptFailure

PAGE = 1_000  # answers of one request
POLL = 20.0  # seconds that the service holds one poll
DAY = 86_400.0  # seconds
_NO_ANSWERS = dict.fromkeys(("offset", "responses", "details", "errors"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the prompt at `index`: a text, or the code and the reason of its error.
    `detail` is what the job asked for beside the text, such as `{"probabilities": …}`."""

    index: int
    text: str | None
    code: str | None = None
    message: str | None = None
    detail: Mapping[str, object] | None = None


class Job:
    """A job that the service accepted. Made by `Penstock.batch_generate` and `Penstock.job`."""

    def __init__(
        self, connection: Connection, request_id: str, timeout: float, *, replayed: bool = False
    ) -> None:
        self.id = request_id
        self.replayed = replayed  #: an earlier post with the same key had made it
        self._path_id = quote(request_id, safe="")
        self._connection = connection
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self, *, wait: float = 0) -> BatchResult:
        """The progress so far, without answers. `wait`: seconds (at most 60) to hold the request
        for the job's end. Survives an outage of the service as long as the client retries."""
        # A page of one: without a page an ended job would answer with all its responses.
        found = self._page(0, 1, wait)
        return found.model_copy(update=_NO_ANSWERS)

    def wait(
        self,
        timeout: float = DAY,
        *,
        poll: float = POLL,
        on_progress: Callable[[BatchResult], None] | None = None,
    ) -> BatchResult:
        """Block until the job ends, however it ends. TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            now = self.status(wait=min(poll, left))
            if on_progress is not None:
                on_progress(now)
            if now.status.finished:
                return now
            if left == 0:
                raise TimeoutError(f"{self.id} did not end within {timeout:g} s; it goes on.")

    def results(self, *, page: int = PAGE) -> Iterator[Answer]:
        """Every answer in input order, read page by page. For a job that has ended."""
        offset = 0
        while True:
            found = self._page(offset, page, 0)
            yield from _answers(found, offset)
            offset += page
            if offset >= found.progress.total:
                return

    def cancel(self) -> BatchResult:
        """Stop the job; what has an answer keeps it. Repeating it changes nothing."""
        return self._ask("cancel", Repeat.SAFELY)

    def retry_failed(self) -> BatchResult:
        """Run the failed prompts of an ended job again. Raises Conflict while it still runs."""
        return self._ask("retry-failed", Repeat.IF_UNSENT)

    def _page(self, offset: int, limit: int, wait: float) -> BatchResult:
        params: dict[str, str | int | float] = {"offset": offset, "limit": limit}
        if wait > 0:
            params["wait"] = round(wait, 3)
        path = f"/batch-result/{self._path_id}"
        call = Call("GET", path, Repeat.SAFELY, self._timeout + wait, params=params)
        return self._connection.fetch(call, BatchResult)

    def _ask(self, what: str, repeat: Repeat) -> BatchResult:
        call = Call("POST", f"/batch-generate/{self._path_id}/{what}", repeat, self._timeout)
        return self._connection.fetch(call, BatchResult)


def _answers(found: BatchResult, offset: int) -> Iterator[Answer]:
    failures = {failure.index: failure for failure in found.errors or ()}
    details = dict(enumerate(found.details or (), start=offset))
    for index, text in enumerate(found.responses or (), start=offset):
        failure = failures.get(index) or PromptFailure(
            index=index, code=PromptError.ENGINE, message="It has no answer yet."
        )
        if text is None:
            yield Answer(index, None, failure.code, failure.message)
        else:
            yield Answer(index, text, detail=details.get(index))
