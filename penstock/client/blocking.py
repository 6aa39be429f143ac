"""Runs a coroutine that never suspends, as all of the client's are over a `BlockingNetwork`.

Needs no event loop, and does not mind one that runs in the same thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or its error."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("A blocking network has suspended.")


def iterate(source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The items of `source`; closed with the generator, wherever that is left."""
    try:
        while (item := run(_next(source))) is not _END:
            yield item
    finally:
        run(source.aclose())


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source, _END)
