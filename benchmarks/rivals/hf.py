"""What transformers offers by itself: padded `generate` in order of arrival or sorted by length,
its continuous batching, and one forward for each label."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.protocol import Answer, Job, Run, Task, serve

PAD = 0
PAGE = 16  #: tokens of one page of the continuous batching's memory
WAIT = 600.0  #: seconds for one answer


def load(options: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """Options: `model` (a folder), `dtype`, `threads`, and `device` where it is not the CPU."""
    torch.set_num_threads(options["threads"])
    model: Any = AutoModelForCausalLM.from_pretrained(
        options["model"], dtype=getattr(torch, options["dtype"]), local_files_only=True
    )
    model = model.to(options.get("device", "cpu")).eval()
    versions = {"transformers": transformers.__version__, "torch": str(torch.__version__)}
    return Contender(model).run, versions


class Contender:
    """One loaded model and four ways to use it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        model.generation_config = _greedy(1)

    def run(self, task: Task) -> Answer:
        ways = {
            "arrival": self._arrival,
            "sorted": self._sorted,
            "continuous": self._continuous,
            "per_label": self._per_label,
        }
        self._made, self._began = 0, time.perf_counter()
        self._ended: float | None = None
        with torch.no_grad():  # its continuous batching refuses the inference mode
            picks = ways[task.kind](task)
        seconds = (self._ended or time.perf_counter()) - self._began
        if not picks and self._made != task.workload.tokens:
            raise RuntimeError(f"{self._made} tokens instead of {task.workload.tokens}")
        return Answer(seconds, len(task.workload.jobs), task.workload.tokens, picks=picks)

    def _arrival(self, task: Task) -> tuple[int, ...]:
        self._batches(task.workload.jobs, task.settings["batch"])
        return ()

    def _sorted(self, task: Task) -> tuple[int, ...]:
        jobs = sorted(task.workload.jobs, key=lambda job: len(job.prompt))
        self._batches(jobs, task.settings["batch"])
        return ()

    def _batches(self, jobs: Sequence[Job], size: int) -> None:
        for start in range(0, len(jobs), size):
            self._generate(jobs[start : start + size])

    def _generate(self, jobs: Sequence[Job]) -> None:
        """Left-padded to the longest prompt, and to the longest answer."""
        width = max(len(job.prompt) for job in jobs)
        pads = [width - len(job.prompt) for job in jobs]
        rows = [[PAD] * pad + list(job.prompt) for pad, job in zip(pads, jobs, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        out = self._model.generate(
            input_ids=torch.tensor(rows, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            generation_config=_greedy(max(job.tokens for job in jobs)),
        )
        self._made += sum(min(job.tokens, out.shape[1] - width) for job in jobs)

    def _continuous(self, task: Task) -> tuple[int, ...]:
        rows = task.settings["batch"]
        longest = max(len(job.prompt) + job.tokens for job in task.workload.jobs)
        config = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=rows * (longest // PAGE + 2),
            max_batch_tokens=task.settings["step_tokens"],
            max_requests_per_batch=rows,
            use_cuda_graph=None if torch.cuda.is_available() else False,
        )
        with self._model.continuous_batching_context_manager(
            generation_config=_greedy(1), continuous_batching_config=config
        ) as manager:
            self._began = time.perf_counter()  # a server makes its memory once
            for job in task.workload.jobs:
                manager.add_request(list(job.prompt), max_new_tokens=job.tokens, eos_token_id=-1)
            for _ in task.workload.jobs:
                output = manager.get_result(timeout=WAIT)
                if output is None or output.error is not None:
                    raise RuntimeError(f"continuous batching failed: {output and output.error}")
                self._made += len(output.generated_tokens)
            self._ended = time.perf_counter()
        return ()

    def _per_label(self, task: Task) -> tuple[int, ...]:
        """One forward for each label of each prompt: what a client without scoring has to do."""
        return tuple(
            max(
                range(len(job.choices)),
                key=[self._likelihood(job, c) for c in job.choices].__getitem__,
            )
            for job in task.workload.jobs
        )

    def _likelihood(self, job: Job, choice: Sequence[int]) -> float:
        tokens = torch.tensor([[*job.prompt, *choice]], device=self._model.device)
        logits = self._model(input_ids=tokens, logits_to_keep=len(choice) + 1).logits[0, :-1]
        chosen = torch.tensor(choice, device=logits.device)[:, None]
        return float(logits.float().log_softmax(-1).gather(1, chosen).sum())


def _greedy(tokens: int) -> GenerationConfig:
    """Exactly so many tokens, whatever they are."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=PAD
    )


if __name__ == "__main__":
    serve(load, sys.argv[1:])
