"""The process environment that transformers reads once, at import. Torch-free.

Call `prepare_environment` before anything imports torch or transformers.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def prepare_environment(*, hub_allowed: bool) -> None:
    """Quiet libraries, and no network unless the user named a model of the hub."""
    os.environ["HF_HUB_OFFLINE"] = "0" if hub_allowed else "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_VERBOSITY"] = "error"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    # Else weights without safetensors would be taken from a proposal that nobody has accepted.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    # Each thread that encodes is enough; the library's own threads hang a process that forks.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def bound_product_cache() -> None:
    """oneDNN keeps what it compiled for each shape of a product, and torch in front of it once more
    for each thread: 1,024 of them by default, some hundred megabytes each, for every step has its
    own number of tokens. One step needs about six."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")


def names_hub_model(name: str) -> bool:
    """Whether a model's name can only mean the hub: it has the form `owner/name`, and there is
    nothing of that name here."""
    path = Path(name).expanduser()
    return not path.exists() and not path.parent.is_dir() and HUB_NAME.fullmatch(name) is not None
