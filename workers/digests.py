"""One short name for all that makes an answer: equal prompts of an owner have the same.

Knows requests as the engine gets them, and stored parameters; knows no table and no lease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from struct import pack
from typing import Final

from batching.requests import EngineRequest
from models.runner import ModelInfo, SamplingParams
from penstock import __version__
from storage.records import Params
from workers.params import labels, length_normalized, reusable

SIZE: Final = 20  #: bytes

Digest = Callable[[EngineRequest, Params], bytes | None]


class Digests:
    """Of one model as it is loaded. `shared`: equal prompts of all owners have one name."""

    def __init__(self, info: ModelInfo, *, shared: bool) -> None:
        self._model = (__version__, info.name, info.revision, info.quantization, info.context)
        self._shared = shared

    def of(self, owner: str) -> Digest:
        """For the prompts of one shard: what those with the same parameters (the same object) have
        in common is hashed once. The function answers None where nothing may be reused."""
        scope = None if self._shared else owner
        common: dict[int, blake2b | None] = {}

        def digest(request: EngineRequest, asked: Params) -> bytes | None:
            if id(asked) not in common:
                common[id(asked)] = self._common(scope, request, asked)
            begun = common[id(asked)]
            if begun is None:
                return None
            hashed = begun.copy()
            hashed.update(pack(f"{len(request.prompt)}i", *request.prompt))
            return hashed.digest()

        return digest

    def _common(self, scope: str | None, request: EngineRequest, asked: Params) -> blake2b | None:
        if not reusable(asked):
            return None
        scored = (request.choices, labels(asked), length_normalized(asked))
        parts = (self._model, scope, _canonical(request), request.n, scored)
        # No NUL is in a `repr`, so the prompt cannot be taken for a part of it.
        return blake2b(f"{parts!r}\0".encode("utf-8", "surrogatepass"), digest_size=SIZE)


def _canonical(request: EngineRequest) -> SamplingParams:
    """Without what changes nothing: greedy rows draw nothing, and scored ones sample nothing."""
    if request.choices:
        return SamplingParams()
    if request.sampling.temperature > 0:
        return request.sampling
    return replace(request.sampling, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, seed=None)
