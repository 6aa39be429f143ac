"""The account that PostgreSQL runs as."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from penstock.stack import account


def test_of_many_who_miss_it_one_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def find(name: str) -> pwd.struct_passwd:
        if not made:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", made[-1], made[-1], "", "/", ""))

    def create(*args: Any, **options: Any) -> None:
        time.sleep(0.05)
        made.append(900 + len(made))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", find)
    monkeypatch.setattr(subprocess, "run", create)

    with ThreadPoolExecutor(4) as pool:
        accounts = list(pool.map(lambda _: account.other_account(), range(4)))

    assert made == [900]
    assert {found.uid for found in accounts if found} == {900}
