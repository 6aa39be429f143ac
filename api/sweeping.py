"""Clears away files that are too old, and blobs that no file names: of deleted ones, and of uploads
that broke off. Any number of processes may do it at once. Knows no HTTP."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import islice
from typing import Final

from api.offload import Offload
from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage import files
from storage.blobs import Blobs

log = get_logger(__name__)

INTERVAL: Final = 60.0  # seconds
#: Seconds that a blob without a file may be an upload's that goes on.
ORPHAN_AGE: Final = 3_600.0
PORTION: Final = 500


async def sweep_for_ever(offload: Offload, blobs: Blobs, orphan_age: float = ORPHAN_AGE) -> None:
    """Until cancelled: the old files every minute, orphans as often as they need to become such."""
    clock = asyncio.get_running_loop().time
    looked = clock()
    while True:
        try:
            await delete_expired(offload, blobs)
            if clock() - looked >= orphan_age:
                looked = clock()
                await delete_orphans(offload, blobs, orphan_age)
        except Exception as error:  # the next round may find it mended
            log.warning("sweep.failed", error=type(error).__name__)
        await asyncio.sleep(INTERVAL)


async def delete_expired(offload: Offload, blobs: Blobs) -> None:
    """Every file whose time is over, a portion at a time."""
    while True:
        ids = await offload.read(lambda conn: files.delete_expired(conn, PORTION))
        for file_id in ids:
            await delete_blob(offload, blobs, file_id)
        if len(ids) < PORTION:
            return


async def delete_orphans(offload: Offload, blobs: Blobs, age: float) -> None:
    """Every blob of that age, in seconds, that belongs to no file."""
    names = blobs.idle(age)
    while portion := await offload.files(lambda: list(islice(names, PORTION))):
        for name in await _unknown(offload, portion):
            await delete_blob(offload, blobs, name)
            log.info("blob.swept", blob=name)


async def _unknown(offload: Offload, names: list[str]) -> list[str]:
    return await offload.read(lambda conn: files.unknown(conn, names))


async def delete_blob(offload: Offload, blobs: Blobs, name: str) -> None:
    """Best effort: what stays is an orphan, and found later."""
    with suppress(Unavailable):
        await offload.files(lambda: blobs.delete(name))
