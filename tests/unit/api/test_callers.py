"""Keys of callers, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from api.callers import Callers
from api.config import ApiConfig
from api.offload import Offload
from storage.database import Database

T = TypeVar("T")


class Unanswered(Offload):
    """Of a database that never answers."""

    async def read(self, work: Callable[[Connection], T], limit: float = 0) -> T:
        await asyncio.Event().wait()
        raise AssertionError


def test_the_end_does_not_wait_for_a_database_that_does_not_answer() -> None:
    async def main() -> None:
        database = Database("postgresql://nobody@localhost/nothing")
        callers = Callers(ApiConfig(model="m"), Unanswered(database, 2))
        asking = asyncio.create_task(callers.identify(None))
        await asyncio.sleep(0)  # it asks whether there are keys
        await callers.close(limit=0)
        with pytest.raises(asyncio.CancelledError):
            await asking
        database.close()

    asyncio.run(main())
