"""`penstock up`: the whole stack in one process tree, until Ctrl-C."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from penstock.settings import Settings
    from penstock.stack.directory import DataDir

Quantization = Literal["int4", "int8", "fp16", "bf16", "fp32"]
console = Console(highlight=False)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(
    model: str | None = typer.Option(
        None, help="A folder, a hub name such as Qwen/Qwen3-0.6B, or `fake` (no torch)."
    ),
    revision: str | None = typer.Option(
        None, help="Commit, tag or branch of a hub model; a commit stays what it is."
    ),
    quantization: Quantization | None = typer.Option(None, help="How the weights are held."),
    device: str | None = typer.Option(None, help="`cpu`, `cuda`, `cuda:1`."),
    port: int | None = typer.Option(
        None, min=0, max=65535, help="Port of the API, 8000 by default; 0 picks a free one."
    ),
    flower_port: int | None = typer.Option(
        None, min=0, max=65535, help="Port of Flower, 5555 by default; 0 picks a free one."
    ),
    data_dir: Path | None = typer.Option(
        None, help="Where everything is kept, `.penstock` by default."
    ),
) -> None:
    """Run the whole stack here: PostgreSQL, Redis, API, dispatcher, worker and Flower.

    What is not given comes from the environment (`PENSTOCK_…`) or `.env`.
    """
    from penstock.commands.connection import check_model_name

    check_model_name(model)
    options = {
        "PENSTOCK_MODEL__NAME": model,
        "PENSTOCK_MODEL__REVISION": revision,
        "PENSTOCK_MODEL__QUANTIZATION": quantization,
        "PENSTOCK_MODEL__DEVICE": device,
        "PENSTOCK_API__PORT": port,
        "PENSTOCK_FLOWER__PORT": flower_port,
        "PENSTOCK_DATA_DIR": data_dir,
    }
    # The children read the same settings: an option is a variable of theirs.
    os.environ.update({key: str(value) for key, value in options.items() if value is not None})
    _start()


def _start() -> None:
    os.umask(0o077)
    from penstock.commands.config import check_exposure, check_flower_exposure, load_settings
    from penstock.stack.directory import DataDir
    from penstock.stack.model import check_model

    settings = load_settings()
    check_exposure(settings)
    check_flower_exposure(settings)
    for name in settings.model.models.values():
        check_model(name)
    directory = DataDir(settings.data_dir)
    try:
        _run(_with_ports(_with_secret(settings, directory)), directory)
    finally:
        directory.release()


def _with_secret(settings: Settings, directory: DataDir) -> Settings:
    from pydantic import SecretStr

    from penstock.stack.directory import os_errors_as_sentences
    from penstock.stack.secret import make_secret

    if settings.api.key_secret is not None:
        return settings
    with os_errors_as_sentences(directory.root):
        secret = SecretStr(make_secret(directory.root))
    return settings.model_copy(
        update={"api": settings.api.model_copy(update={"key_secret": secret})}
    )


def _with_ports(settings: Settings) -> Settings:
    from penstock.stack.ports import claim_ports

    api, flower = settings.api, settings.flower
    ports = claim_ports(
        {"--port": (api.host, api.port), "--flower-port": (flower.host, flower.port)}
    )
    return settings.model_copy(
        update={
            "api": api.model_copy(update={"port": ports["--port"]}),
            "flower": flower.model_copy(update={"port": ports["--flower-port"]}),
        }
    )


def _run(settings: Settings, directory: DataDir) -> None:
    from penstock.stack.directory import os_errors_as_sentences
    from penstock.stack.plan import make_plan
    from penstock.stack.report import StackFacts
    from penstock.stack.supervisor import Stopped, Supervisor, interruptible

    try:
        with interruptible():  # a new database takes a while to lay out
            plan = make_plan(settings, directory, _say)
    except Stopped:
        _say("stopped before anything ran")
        return
    facts = StackFacts(settings, directory, plan)
    supervisor = Supervisor(
        plan.specs,
        stop_order=plan.stop_order,
        logs=directory.logs,
        pids=directory.root / "pids.json",
        say=_say,
        on_change=lambda: facts.children_changed(supervisor.pids()),
    )
    with supervisor.signals():
        try:
            supervisor.start()
            with os_errors_as_sentences(directory.root):
                facts.ready(supervisor.pids())
            with suppress(OSError, SystemExit):  # nobody may be looking: no reason to end
                console.print(_table(facts.rows()))
            supervisor.watch()
        except Stopped:
            pass
        finally:
            _say("stopping")
            supervisor.stop()
    _say(f"stopped; what was accepted stays in {directory.root}")


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table(title="Penstock is up", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _say(line: str) -> None:
    with suppress(OSError):  # a closed terminal must not keep the children from being stopped
        sys.stdout.write(f"{datetime.now():%H:%M:%S} {line}\n")
        sys.stdout.flush()
