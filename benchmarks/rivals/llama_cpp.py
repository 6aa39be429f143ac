"""llama.cpp's parallel sequences, driven as its server does: prompts in chunks beside the rows
that decode, a shared beginning read once, in an environment of its own."""

from __future__ import annotations

import ctypes
import importlib
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import Answer, Job, Run, Task, Workload, serve
from benchmarks.rivals.gguf_model import convert

STEP_TOKENS = 512  #: of one forward; llama.cpp's own default of a physical batch
FLOAT32, FLOAT16 = 0, 1  #: ggml's numbers


@dataclass(slots=True)
class _Row:
    """A job in a sequence of its own. `read`: tokens of the prompt that are in its memory."""

    job: Job
    sequence: int
    read: int
    made: int = 0
    last: int = 0


class Contender:
    """One context with room for `batch` sequences and one more for what they share."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._cpp = importlib.import_module("llama_cpp")
        self._rows: int = options["batch"]
        path = convert(Path(options["model"]), options["dtype"])
        self._model = self._cpp.llama_model_load_from_file(
            str(path).encode(), self._cpp.llama_model_default_params()
        )
        self._options, self._unified = options, False
        self._context: Any = None
        self._memory: Any = None
        self._batch = self._cpp.llama_batch_init(STEP_TOKENS, 0, 1)
        self._vocabulary: int = self._cpp.llama_vocab_n_tokens(
            self._cpp.llama_model_get_vocab(self._model)
        )

    def _open(self, *, unified: bool) -> None:
        """A context; `unified` is for sequences that share a beginning, and slower for others."""
        options = self._options
        if self._context:
            self._cpp.llama_free(self._context)
        settings = self._cpp.llama_context_default_params()
        settings.n_ctx = (self._rows + 1) * options["context"]
        settings.n_seq_max = self._rows + 1
        settings.n_batch = settings.n_ubatch = STEP_TOKENS
        settings.n_threads = settings.n_threads_batch = options["threads"]
        settings.kv_unified = self._unified = unified
        kind = FLOAT32 if options["dtype"] == "float32" else FLOAT16
        settings.type_k = settings.type_v = kind
        self._context = self._cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError("llama.cpp made no context")
        self._memory = self._cpp.llama_get_memory(self._context)

    def run(self, task: Task) -> Answer:
        unified = bool(task.workload.shared)
        if not self._context or unified != self._unified:
            self._open(unified=unified)
        self._cpp.llama_memory_clear(self._memory, True)
        began = time.perf_counter()
        made = self._all(task.workload)
        return Answer(time.perf_counter() - began, len(task.workload.jobs), made)

    def _all(self, workload: Workload) -> int:
        waiting, free = deque(workload.jobs), list(range(self._rows))
        live: list[_Row] = []
        if workload.shared:
            self._share(workload)
        made = 0
        while waiting or live:
            while waiting and free:
                live.append(self._admit(waiting.popleft(), free.pop(), workload.shared))
            self._step(live)
            for row in [row for row in live if row.made == row.job.tokens]:
                made += row.made
                live.remove(row)
                free.append(row.sequence)
                self._cpp.llama_memory_seq_rm(self._memory, row.sequence, -1, -1)
        return made

    def _share(self, workload: Workload) -> None:
        owner = _Row(Job(workload.jobs[0].prompt[: workload.shared], 1), self._rows, 0)
        while not owner.made:
            self._step([owner])

    def _admit(self, job: Job, sequence: int, shared: int) -> _Row:
        if shared:
            self._cpp.llama_memory_seq_cp(self._memory, self._rows, sequence, 0, shared)
        return _Row(job, sequence, shared)

    def _step(self, live: list[_Row]) -> None:
        """One forward: a token of each row that decodes, the rest of the budget for prompts."""
        self._batch.n_tokens = 0
        chosen = [row for row in live if row.made]
        for row in chosen:
            self._add(row.last, row.read + row.made - 1, row.sequence, wanted=True)
        for row in live:
            if row.made or self._batch.n_tokens == STEP_TOKENS:
                continue
            end = min(len(row.job.prompt), row.read + STEP_TOKENS - self._batch.n_tokens)
            last = end == len(row.job.prompt)
            for place in range(row.read, end):
                wanted = last and place == end - 1
                self._add(row.job.prompt[place], place, row.sequence, wanted=wanted)
            row.read = end
            if last:
                chosen.append(row)
        self._decode(chosen)

    def _decode(self, chosen: list[_Row]) -> None:
        code = self._cpp.llama_decode(self._context, self._batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        if not chosen:
            self._cpp.llama_synchronize(self._context)
            return
        size = len(chosen) * self._vocabulary
        logits = np.ctypeslib.as_array(
            ctypes.cast(self._cpp.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float)),
            (size,),
        )
        best = logits.reshape(len(chosen), self._vocabulary).argmax(axis=1).tolist()
        for row, token in zip(chosen, best, strict=True):
            row.last, row.made = token, row.made + 1

    def _add(self, token: int, place: int, sequence: int, *, wanted: bool) -> None:
        batch, at = self._batch, self._batch.n_tokens
        batch.token[at] = token
        batch.pos[at] = place
        batch.n_seq_id[at] = 1
        batch.seq_id[at][0] = sequence
        batch.logits[at] = wanted
        batch.n_tokens = at + 1


def load(options: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """Options: `model` (a folder), `dtype`, `batch`, `context`, `threads`."""
    contender = Contender(options)
    version = importlib.import_module("llama_cpp").__version__
    return contender.run, {"llama-cpp-python": version}


if __name__ == "__main__":
    serve(load, sys.argv[1:])
