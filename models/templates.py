"""A chat template is a program that comes with a model. transformers renders it in jinja2's
sandbox, which keeps it from everything but going on for ever; here are the bounds on that.

Knows no tokenizer and no chat.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

T = TypeVar("T")

LARGEST: Final = 200_000  #: characters of a template; the longest known have about 20,000
LOOKS: Final = 10  #: of the watch, until a rendering has taken too long
PAUSE: Final = 0.5  #: seconds between two
MOST_TIMES: Final = 1_000  #: what a template may multiply by


class TemplateLimit(Exception):
    """The model's chat template goes beyond a limit."""


class _TooLong(BaseException):
    """Raised inside a rendering. No `Exception`, so that no filter of jinja2 takes it for one."""


def vet(template: str) -> None:
    """Raises TemplateLimit for what no watch could end: sizes and powers made in one step."""
    if len(template) > LARGEST:
        raise TemplateLimit(f"has {len(template):,} characters, of at most {LARGEST:,}")
    # Parsed alone: to compile it would compute what is constant in it.
    environment = _compile_jinja_template("").environment
    try:
        tree = environment.parse(template)
    except TemplateError as error:
        raise TemplateLimit(f"is broken: {error.message}") from error
    if any(tree.find_all(nodes.Pow)):
        raise TemplateLimit("computes powers")
    if not all(_is_small(product) for product in tree.find_all(nodes.Mul)):
        raise TemplateLimit(f"multiplies by more than {MOST_TIMES:,}")


def with_args(template: str, args: Mapping[str, str | int | float | bool]) -> str:
    """The template with names set that it looks at, such as `enable_thinking`."""
    given = (f"{{%- set {name} = {json.dumps(value)} -%}}" for name, value in args.items())
    return "".join(given) + template


def longest_output(given: int) -> int:
    """Characters that a template may make of so many."""
    return 4 * given + LARGEST


def _is_small(product: nodes.Mul) -> bool:
    """A text times a number nobody knows may fill the memory at once."""
    factors = [
        side.value for side in (product.left, product.right) if isinstance(side, nodes.Const)
    ]
    return any(isinstance(value, int) and value <= MOST_TIMES for value in factors)


class Watch:
    """Ends what takes too long, from a thread that looks now and then, so that a rendering that
    does not costs nothing. It counts looks: a process that was stopped meanwhile lost no time."""

    def __init__(self, looks: int = LOOKS, pause: float = PAUSE) -> None:
        self._looks, self._pause = looks, pause
        self._lock = threading.Lock()
        self._running: dict[int, int] = {}  #: looks by thread
        self._thread: threading.Thread | None = None

    def limit(self, render: Callable[[], T]) -> T:
        """What `render` returns. Raises TemplateLimit when it took too long."""
        me = threading.get_ident()
        try:
            with self._lock:
                self._start()
                self._running[me] = 0
            try:
                return render()
            finally:
                with self._lock:  # after it nothing is thrown at this thread
                    self._running.pop(me, None)
        except _TooLong:
            seconds = self._looks * self._pause
            raise TemplateLimit(f"does not end within {seconds:g} seconds") from None

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="templates", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(self._pause)
            with self._lock:
                for thread in list(self._running):
                    self._running[thread] += 1
                    if self._running[thread] > self._looks:
                        del self._running[thread]
                        _throw(thread)


def _throw(thread: int) -> None:
    """Raise `_TooLong` in a thread of this process, at its next step of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TooLong))


#: For all models of the process.
watch: Final = Watch()
