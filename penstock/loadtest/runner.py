"""Sends the requests of a plan and collects what was heard. Bounded in time and in open requests.

Knows targets, not what they speak; prints nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from penstock.errors import PenstockError
from penstock.loadtest.plan import Plan
from penstock.loadtest.prompts import Prompt
from penstock.loadtest.samples import Heard, Sample, clock
from penstock.loadtest.targets import Refused, Target

T = TypeVar("T")

WARM_AT_ONCE = 8


class LoadTest:
    """One run. `stop` may be set at any time: what was measured so far remains in `samples`."""

    def __init__(self, plan: Plan, target: Target, prompts: Iterator[Prompt]) -> None:
        self.samples: list[Sample] = []
        self.late = 0  #: requests that were due and not sent before the time was up
        self.stop = asyncio.Event()
        self._plan = plan
        self._target = target
        self._prompts = prompts
        self._sent = 0

    async def run(self) -> None:
        """Warm up, send, wait for the last answers. Raises PenstockError when every request of the
        warm-up failed."""
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not work.done():
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _work(self) -> None:
        await self._warm_up()
        send = self._send_by_clients if self._plan.rate is None else self._send_by_clock
        await send(clock())

    async def _warm_up(self) -> None:
        gate = asyncio.Semaphore(min(WARM_AT_ONCE, self._plan.concurrency))

        async def one() -> Sample:
            async with gate:
                return await self._measured(clock())

        found = await _all(one() for _ in range(self._plan.warmup))
        errors = [sample.error for sample in found if sample.error is not None]
        if found and len(errors) == len(found):
            raise PenstockError(f"Every request of the warm-up failed: {errors[0]}.")

    async def _send_by_clients(self, start: float) -> None:
        """Closed loop: each client asks again when it has its answer."""
        end = start + self._plan.duration

        async def client() -> None:
            while clock() < end and self._take():
                self.samples.append(await self._measured(clock()))

        await _all(client() for _ in range(self._plan.concurrency))

    async def _send_by_clock(self, start: float) -> None:
        """Open loop: a Poisson process, whatever the server does. A request that finds too many
        open waits here, and its time counts from when it was due."""
        end = start + self._plan.duration
        gate = asyncio.Semaphore(self._plan.concurrency)

        async def one(due: float) -> None:
            try:
                self.samples.append(await self._measured(due))
            finally:
                gate.release()

        async with asyncio.TaskGroup() as group:
            for due in self._arrivals(start, end):
                await asyncio.sleep(max(0.0, due - clock()))
                try:
                    async with asyncio.timeout(max(0.0, end - clock())):
                        await gate.acquire()
                except TimeoutError:
                    self.late += 1
                    continue
                group.create_task(one(due))

    def _arrivals(self, start: float, end: float) -> Iterator[float]:
        chance = random.Random(self._plan.seed)  # noqa: S311
        due = start
        while (due := due + chance.expovariate(self._plan.rate or 1)) < end and self._take():
            yield due

    def _take(self) -> bool:
        """Whether one more may be sent."""
        most = self._plan.count
        self._sent += 1
        return most is None or self._sent <= most

    async def _measured(self, due: float) -> Sample:
        heard = Heard(due)
        try:
            async with asyncio.timeout(self._plan.timeout):
                await self._target.ask(self._next_prompts(), heard)
        except TimeoutError:
            return heard.sample("timeout")
        except Refused as refused:
            return heard.sample(str(refused))
        return heard.sample()

    def _next_prompts(self) -> Sequence[Prompt]:
        size = self._plan.job_size if self._plan.kind == "job" else 1
        return list(islice(self._prompts, size))


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of it at once; when one fails or is cancelled, none goes on."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]
