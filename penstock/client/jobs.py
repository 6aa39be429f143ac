"""What can be asked of one job, for both clients. Knows routes, not whether the network blocks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import quote

from penstock.client.answers import Answer, Told, every, pushed, stored
from penstock.client.call import Call, Repeat
from penstock.client.connection import Connection
from penstock.client.progress import showing
from penstock.errors import NotFound
from penstock.schemas.batch import BatchResult

PAGE = 1_000  # answers of one request
POLL = 20.0  # seconds that the service holds one poll
SHOWN_POLL = 0.5  # seconds, while somebody watches
FIRST_LOOK, LAST_LOOK = 0.1, 2.0  # seconds between two looks for answers that were not pushed
DAY = 86_400.0  # seconds
_NO_ANSWERS = dict.fromkeys(("offset", "responses", "details", "tokens", "from_cache", "errors"))

OnProgress = Callable[[BatchResult], None]


class JobCalls:
    """The requests about one job, and the loops over them."""

    def __init__(self, connection: Connection, request_id: str, timeout: float) -> None:
        self.id = request_id
        self._path_id = quote(request_id, safe="")
        self._connection = connection
        self._timeout = timeout
        self._pushes = True  # until the service says that it has no such route
        self._arrived = Told()

    async def status(self, wait: float = 0) -> BatchResult:
        # A page of one: without a page an ended job would answer with all its responses.
        found = await self._page(0, 1, wait)
        return found.model_copy(update=_NO_ANSWERS)

    async def wait(
        self, limit: float, poll: float, progress: bool, on_progress: OnProgress | None
    ) -> BatchResult:
        deadline = time.monotonic() + limit
        with showing(progress, self.id) as bar:
            while True:
                left = max(0.0, deadline - time.monotonic())
                held = min(poll, left) if bar is None else min(poll, left, SHOWN_POLL)
                now = await self.status(held)
                for tell in (bar, on_progress):
                    if tell is not None:
                        tell(now)
                if now.status.finished:
                    return now
                if left == 0:
                    raise self._overdue(limit)

    async def results(self, page: int) -> AsyncGenerator[Answer, None]:
        offset = 0
        while True:
            found = await self._page(offset, page)
            for answer in every(found, offset):
                yield answer
            offset += page
            if offset >= found.progress.total:
                return

    def arrived(self) -> AsyncGenerator[Answer, None]:
        """What is stored and was not given by an earlier call, in input order."""
        return self._sweep(self._arrived)

    async def as_finished(self, limit: float) -> AsyncGenerator[Answer, None]:
        """Pushed events are a hint that may break off; what they left out is read in pages."""
        deadline = time.monotonic() + limit
        told = Told()
        look, ended = FIRST_LOOK, False
        while True:
            before = told.count
            if not ended:
                async with aclosing(self._pushed(told, deadline)) as events:
                    async for answer in events:
                        yield answer
            async with aclosing(self._sweep(told)) as found:
                async for answer in found:
                    yield answer
            if ended:
                return
            # One more sweep after the end: what came while the last one ran is behind it.
            ended = (await self.status()).status.finished
            if not ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._overdue(limit)
                look = FIRST_LOOK if told.count > before else min(2 * look, LAST_LOOK)
                await self._connection.network.sleep(min(look, left))

    async def cancel(self) -> BatchResult:
        return await self._ask("cancel", Repeat.SAFELY)

    async def retry_failed(self) -> BatchResult:
        return await self._ask("retry-failed", Repeat.IF_UNSENT)

    async def answers(self, limit: float, poll: float, progress: bool) -> list[Answer]:
        await self.wait(limit, poll, progress, None)
        return [answer async for answer in self.results(PAGE)]

    async def _pushed(self, told: Told, deadline: float) -> AsyncGenerator[Answer, None]:
        """What one stream of events brings, as long as it lasts."""
        if not self._pushes:
            return
        path = f"/batch-result/{self._path_id}/events"
        headers = {"Last-Event-ID": told.last_event} if told.last_event else {}
        call = Call("GET", path, Repeat.SAFELY, self._timeout, headers=headers)
        try:
            async with aclosing(self._connection.events(call)) as events:
                async for event in events:
                    told.last_event = event.id
                    answer = pushed(event.data) if event.event == "result" else None
                    if answer is not None and told.add(answer.index):
                        yield answer
                    if time.monotonic() > deadline:
                        return
        except NotFound:  # the route or the job: the pages say which
            self._pushes = False

    async def _sweep(self, told: Told) -> AsyncGenerator[Answer, None]:
        """What is stored and was not told, in input order; only pages that may have some."""
        offset = told.first_open(0)
        while True:
            page = await self._page(offset, PAGE)
            told.expect(page.progress.total)
            for answer in stored(page, offset):
                if told.add(answer.index):
                    yield answer
            offset = told.first_open(offset + PAGE)
            done = page.progress.completed + page.progress.failed
            if told.count >= done or offset >= page.progress.total:
                return

    def _overdue(self, limit: float) -> TimeoutError:
        return TimeoutError(f"{self.id} did not end within {limit:g} s; it goes on.")

    async def _page(self, offset: int, limit: int, wait: float = 0) -> BatchResult:
        params: dict[str, str | int | float] = {"offset": offset, "limit": limit}
        if wait > 0:
            params["wait"] = round(wait, 3)
        path = f"/batch-result/{self._path_id}"
        call = Call("GET", path, Repeat.SAFELY, self._timeout + wait, params=params)
        return await self._connection.fetch(call, BatchResult)

    async def _ask(self, what: str, repeat: Repeat) -> BatchResult:
        call = Call("POST", f"/batch-generate/{self._path_id}/{what}", repeat, self._timeout)
        return await self._connection.fetch(call, BatchResult)
