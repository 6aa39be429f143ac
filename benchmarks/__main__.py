"""`make bench`: our engine beside what people use today, in one run on this machine's CPU.

Builds the rivals' environments, runs the plan, writes RESULTS.md and its pictures, and ends with
one line of JSON that holds every ratio.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from rich.console import Console

# Before anything imports transformers.
from models.environment import prepare_environment

prepare_environment(hub_allowed=False)

from benchmarks import contenders, machine, picture, report  # noqa: E402
from benchmarks.environments import LLAMA, VLLM, build  # noqa: E402
from benchmarks.models import BenchModel, committed, random_llama  # noqa: E402
from benchmarks.plan import FULL, QUICK, Cell, Size, Wanted, cells, workers  # noqa: E402
from benchmarks.rounds import Results, fleet, run  # noqa: E402
from benchmarks.summary import Requirement, Summary, ratios, requirements  # noqa: E402
from benchmarks.whole import Whole, measure  # noqa: E402
from benchmarks.worker import Contender, ContenderFailed, Worker  # noqa: E402

BENCH = Path(".bench")
DTYPES = ("float32", "bfloat16")
#: Of the service part, which comes after everything else has been measured.
FAILURES = (
    ContenderFailed,
    OSError,
    RuntimeError,
    SystemExit,
    httpx2.HTTPError,
    subprocess.SubprocessError,
)

Say = Callable[[str], None]


def main(
    quick: Annotated[bool, typer.Option(help="Under 5 minutes.")] = False,
    rivals: Annotated[bool, typer.Option(help="Beside vLLM and llama.cpp.")] = True,
    service: Annotated[bool, typer.Option(help="The whole service, too.")] = True,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    dtype: Annotated[str, typer.Option(help="Only float32 or bfloat16.")] = "",
    cell: Annotated[str, typer.Option(help="Only these workloads, by comma.")] = "",
    who: Annotated[str, typer.Option(help="Only these contenders, by comma.")] = "",
    out: Annotated[Path, typer.Option(help="Where RESULTS.md goes.")] = Path("benchmarks"),
) -> None:
    """Measure, write RESULTS.md, print one line of JSON."""
    console = Console(stderr=True)
    results, began = Results(), time.monotonic()
    filters = {"--model": model, "--dtype": dtype, "--cell": cell, "--who": who}
    asked = " ".join(
        (
            *(["--quick"] if quick else []),
            *(f"{name} {value}" for name, value in filters.items() if value),
            *([] if service else ["--no-service"]),
        )
    )
    size, say = QUICK if quick else FULL, _sayer(console, began)
    wanted = Wanted(_set(cell), _set(who))
    others = {*size.vllm, *size.vllm_cached, *size.also}
    missing = _missing(rivals, others & (wanted.contenders or others), results, say)
    models = [random_llama(BENCH / "models"), committed(BENCH / "models")]
    models = [one for one in models if model in ("", one.name)]
    groups = [
        (one, kind)
        for one in models
        for kind in DTYPES
        if (model or one.name in size.models) and dtype in ("", kind)
    ]
    if quick:
        for group in groups:
            _compile(*group, size, missing, wanted, say)
    began = time.monotonic()
    whole: list[Whole] = []

    def write() -> report.Report:
        minutes = (time.monotonic() - began) / 60
        found = _report(results, whole, asked=asked, minutes=minutes)
        out.mkdir(parents=True, exist_ok=True)
        (out / "RESULTS.md").write_text(report.document(found))
        picture.draw(found.summary, out)
        return found

    for group in groups:
        _group(*group, size, missing, wanted, results, say)
        write()  # what there is by now, should the rest be cut off
    if service:
        whole += _whole(models, size, results, say)
    found = write()
    report.show(found, console)
    failed = [need.key for need in found.needs if need.holds is False and _bounded(need)]
    figures = {"quick": quick, "minutes": round(found.minutes, 1), "ratios": ratios(found.needs)}
    sys.stdout.write(json.dumps({**figures, "below": failed, "skipped": results.skipped}) + "\n")


def _report(results: Results, whole: list[Whole], *, asked: str, minutes: float) -> report.Report:
    summary = Summary(results)
    needs = [*requirements(summary), *_service_needs(whole)]
    return report.Report(machine.describe(), asked, minutes, results, summary, needs, whole)


def _set(names: str) -> frozenset[str]:
    return frozenset(filter(None, names.split(",")))


def _sayer(console: Console, began: float) -> Say:
    def say(line: str) -> None:
        stamp = f"{time.monotonic() - began:7.1f}"
        console.print(f"{stamp} {line}", markup=False, highlight=False)

    return say


def _missing(rivals: bool, others: set[str], results: Results, say: Say) -> set[str]:
    """Environments that some of `others` need and that are not there; who runs in them is left
    out."""
    missing = set()
    for environment in (VLLM, LLAMA):
        if not any(name.startswith(environment.name) for name in others):
            continue
        say(f"environment {environment.name}")
        reason = build(environment, BENCH) if rivals else "not asked for"
        if reason is not None:
            missing.add(environment.name)
            results.skipped[environment.name] = reason
    return missing


def _compile(
    model: BenchModel, dtype: str, size: Size, missing: set[str], wanted: Wanted, say: Say
) -> None:
    """vLLM compiles a model when it first loads it, and keeps that: a part of its installation."""
    for contender in _contenders(wanted.of(cells(model, dtype, size)), model, dtype, missing):
        name = contender.name
        if name.startswith(VLLM.name) and not _mark(name, model, dtype).exists():
            say(f"{model.name} {dtype}: compiling for {name}")
            logs = BENCH / "logs" / "compile" / model.name / dtype
            with _loaded([contender], model, dtype, Results(), logs):
                pass


@contextlib.contextmanager
def _loaded(
    everyone: list[Contender], model: BenchModel, dtype: str, results: Results, logs: Path
) -> Iterator[dict[str, Worker]]:
    """A fleet; what vLLM has compiled is marked."""
    with fleet(everyone, results, logs) as running:
        for name in running:
            if name.startswith(VLLM.name):
                mark = _mark(name, model, dtype)
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
        yield running


def _mark(contender: str, model: BenchModel, dtype: str) -> Path:
    return BENCH / "vllm-cache" / f"{contender}-{model.name}-{dtype}.complete"


def _group(
    model: BenchModel,
    dtype: str,
    size: Size,
    missing: set[str],
    wanted: Wanted,
    results: Results,
    say: Say,
) -> None:
    """All cells of one model in one dtype."""
    plan = wanted.of(cells(model, dtype, size))
    everyone = _contenders(plan, model, dtype, missing)
    say(f"{model.name} {dtype}: loading {', '.join(one.name for one in everyone)}")
    logs = BENCH / "logs" / model.name / dtype
    with _loaded(everyone, model, dtype, results, logs) as running:
        run(plan, running, results, (model.name, dtype), BENCH / "workloads", say)


def _contenders(
    plan: list[Cell], model: BenchModel, dtype: str, missing: set[str]
) -> list[Contender]:
    """Those of a plan that are installed."""
    names = tuple(name for name in workers(plan) if name.split("-")[0] not in missing)
    return contenders.everyone(
        names, model.folder, dtype, machine.cores(), machine.allocator(), BENCH
    )


def _whole(models: list[BenchModel], size: Size, results: Results, say: Say) -> list[Whole]:
    """In bf16: the engine is fastest there, and the service's share of the time the largest."""
    found = []
    for model in models:
        if model.name not in size.service:
            continue
        rows, rounds = size.service[model.name]
        say(f"{model.name}: {rows:,} rows through the whole service")
        bare = contenders.everyone(
            ("packed",), model.folder, "bfloat16", machine.cores(), machine.allocator(), BENCH
        )[0]
        try:
            found.append(measure(model, "bfloat16", rows, rounds, bare, BENCH / "whole"))
        except FAILURES as error:
            results.skipped[f"whole service ({model.name})"] = str(error)
    return found


def _service_needs(whole: list[Whole]) -> list[Requirement]:
    return [
        Requirement(
            5,
            f"whole service / bare engine ({one.model}, {one.dtype}, {one.rows:,} rows)",
            f"service/bare.{one.model}.{one.dtype}",
            one.ratio,
            least=0.95,
        )
        for one in whole
    ]


def _bounded(need: Requirement) -> bool:
    return need.least is not None or need.most is not None


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    typer.run(main)
