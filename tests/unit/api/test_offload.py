"""Which threads wait for which work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

from api.offload import Offload
from storage.database import Database


class Instant:
    """A database that does no more than to run the work."""

    def transact(self, work: Callable[[Any], Any]) -> Any:
        return work(None)


def test_what_nobody_waits_for_holds_up_no_post() -> None:
    asyncio.run(_store_while_a_file_is_read())


async def _store_while_a_file_is_read() -> None:
    offload, begun, done = Offload(cast(Database, Instant()), 5), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read_large_file(_: object) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return done.wait(30)

    reading = asyncio.create_task(offload.background(read_large_file))
    await begun.wait()
    stored = await offload.store(lambda _: "stored")
    unfinished = not reading.done()
    done.set()

    assert (stored, unfinished, await reading) == ("stored", True, True)
