"""Packages that only some tables need, imported when one comes. Knows no use of them."""

from __future__ import annotations

import importlib
from typing import Any

from penstock.errors import InvalidRequest


def needed(module: str, what: str) -> Any:
    """The module. Raises InvalidRequest, with what to install, where it is missing; `what` needs
    it, in words."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".", maxsplit=1)[0]
        raise InvalidRequest(
            f'{what} needs the package {package}: pip install "penstock[tables]".', param="input"
        ) from error
