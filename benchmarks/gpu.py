"""Our engine beside what transformers offers, on one CUDA device: shapes of real models with random
weights made there, so that nothing is downloaded. Needs torch and transformers alone, and
bitsandbytes for nf4.

    python -m benchmarks.gpu --shape llama-2-7b --dtype bf16

Prints one line of JSON for each measurement. `--tiny` runs the same on a CPU, to try the program.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import typer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from benchmarks import ours
from benchmarks.protocol import Run, Task, Workload
from benchmarks.rivals import hf
from benchmarks.workloads import mixed
from models.packed.build import build
from models.packed.memory import Wishes
from models.padded import PaddedRunner
from models.runner import ModelInfo, Runner
from penstock import telemetry

CONTEXT = 1024
BANDWIDTH_BYTES = 1 << 30
CONFIGS: Mapping[str, Callable[[], Any]] = {
    "llama-2-7b": lambda: LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=CONTEXT,
    ),
    "qwen3-8b": lambda: Qwen3Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=CONTEXT,
    ),
    "tiny": lambda: LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    ),
}


@dataclass(frozen=True, slots=True)
class Roofline:
    """Tokens/s that memory alone would allow: every step reads all weights once, and the keys and
    values of its rows."""

    weight_bytes: int
    bytes_per_token: int
    bandwidth: float

    def tokens_per_s(self, rows: int, context: float) -> float:
        step = (self.weight_bytes + rows * context * self.bytes_per_token) / self.bandwidth
        return rows / step


def make_model(shape: str, dtype: str, device: torch.device) -> Any:
    """A model of this shape that never ends by itself."""
    config = CONFIGS[shape]()
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    compute = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = auto.from_config(config, dtype=compute).eval()
    if dtype == "nf4":
        _to_nf4(model, device)
    model.generation_config.eos_token_id = None
    return model


def _to_nf4(model: Any, device: torch.device) -> None:
    """Pack every linear layer but the head, one at a time."""
    bitsandbytes: Any = importlib.import_module("bitsandbytes")
    for parent in list(model.modules()):
        for name, linear in list(parent.named_children()):
            if not isinstance(linear, torch.nn.Linear) or name == "lm_head":
                continue
            packed = bitsandbytes.nn.Linear4bit(
                linear.in_features,
                linear.out_features,
                bias=linear.bias is not None,
                compute_dtype=linear.weight.dtype,
                quant_type="nf4",
            )
            packed.weight = bitsandbytes.nn.Params4bit(
                linear.weight.data.cpu(), requires_grad=False, quant_type="nf4"
            )
            setattr(parent, name, packed.to(device))


def make_tokenizer(vocabulary: int) -> Any:
    words = {f"w{number}": number for number in range(vocabulary)}
    fast: Any = PreTrainedTokenizerFast
    inner = Tokenizer(WordLevel(words, "w0"))
    return fast(tokenizer_object=inner, model_max_length=CONTEXT)


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that this device copies, read and written."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(6):
        _wait(device)
        began = time.perf_counter()
        target.copy_(source)
        _wait(device)
        times.append(time.perf_counter() - began)
    return 2 * size / min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def contenders(model: Any, info: ModelInfo, rows: int) -> Iterator[tuple[str, Run, Task]]:
    """Each with what it is to do; the workload is put in later. Ours comes last: from then on the
    model's attention is ours."""
    nothing = Workload("", ())
    rival = hf.Contender(model)
    yield "naive, batch 8", rival.run, Task("arrival", nothing, {"batch": 8})
    yield "sorted", rival.run, Task("sorted", nothing, {"batch": rows})
    settings = {"batch": rows, "step_tokens": 512}
    yield "transformers' continuous batching", rival.run, Task("continuous", nothing, settings)
    tokenizer = make_tokenizer(model.config.vocab_size)
    padded: Runner = PaddedRunner(model, tokenizer, info)
    yield "ours, padded", ours.Contender(padded, rows).run, Task("generate", nothing)
    own = model.config._attn_implementation
    packed = build(model, tokenizer, info, Wishes(max_rows=rows), speed_up=None)
    yield "ours, packed", ours.Contender(packed).run, Task("generate", nothing)
    model.set_attn_implementation(own)


def measure(run: Run, task: Task, workload: Workload, rounds: int) -> dict[str, object]:
    """Tokens/s: the median of some rounds after a short one to warm up, or why there are none."""
    try:
        few = replace(workload, jobs=workload.jobs[:8])
        run(Task(task.kind, few, task.settings))
        rates = []
        for _ in range(rounds):
            answer = run(Task(task.kind, workload, task.settings))
            rates.append(answer.tokens / answer.seconds)
    except Exception as error:
        return {"skipped": f"{type(error).__name__}: {error}"[:300]}
    return {"tokens_per_s": round(statistics.median(rates), 1), "rounds": rounds}


def main(
    shape: str = "llama-2-7b",
    dtype: str = "bf16",
    limits: str = "32,64,128",
    prompts: int = 512,
    rounds: int = 3,
    tiny: bool = False,
) -> None:
    """`dtype` is bf16 or nf4. `tiny` overrides the shape and runs on a CPU."""
    telemetry.configure("WARNING")
    device = torch.device("cpu" if tiny else "cuda")
    shape = "tiny" if tiny else shape
    model = make_model(shape, dtype, device)
    workload = mixed(prompts, model.config.vocab_size)
    info = ModelInfo(
        name=shape,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        memory_bytes=model.get_memory_footprint(),
        device=str(device),
        quantization=dtype,
        context=CONTEXT,
        runner="padded",
    )
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    roof = Roofline(
        info.memory_bytes,
        2 * 2 * config.num_hidden_layers * config.num_key_value_heads * size,
        bandwidth(device, BANDWIDTH_BYTES >> (10 if tiny else 0)),
    )
    lengths = [len(job.prompt) + job.tokens / 2 for job in workload.jobs]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    for rows in [int(limit) for limit in limits.split(",")]:
        for contender, run, task in contenders(model, info, rows):
            figures = measure(run, task, workload, rounds)
            roofline = round(roof.tokens_per_s(rows, statistics.mean(lengths)))
            line = {"device": name, "shape": shape, "dtype": dtype, "rows": rows}
            line |= {"contender": contender, **figures, "roofline_tokens_per_s": roofline}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
