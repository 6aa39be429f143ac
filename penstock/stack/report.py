"""What a running stack tells about itself: `stack.json` for programs, rows for the user.

Asks the API once for what the worker loaded. Knows no process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from penstock.hosts import is_loopback
from penstock.settings import DEFAULT_MODEL, Settings
from penstock.stack.directory import DataDir
from penstock.stack.model import resolve_model
from penstock.stack.plan import Plan, bearer
from penstock.stack.probe import get_json, reachable

_HINT = "--model Qwen/Qwen3-0.6B --quantization int4"


class StackFacts:
    """The facts of one stack. Nothing is published before `ready`."""

    def __init__(self, settings: Settings, directory: DataDir, plan: Plan) -> None:
        self._settings = settings
        self._directory = directory
        self._plan = plan
        self._model: Mapping[str, object] = {}
        self._queue: object = None
        self._is_ready = False

    @property
    def api_url(self) -> str:
        """Where clients on this machine reach the API."""
        return _url(self._settings.api.host, self._settings.api.port)

    @property
    def flower_url(self) -> str:
        """Where this machine reaches Flower."""
        return _url(self._settings.flower.host, self._settings.flower.port)

    def ready(self, pids: Mapping[str, int]) -> None:
        """Learn what is served, and publish."""
        stats = self._ask()
        model = stats.get("model")
        self._model = model if isinstance(model, dict) else {}
        self._queue = stats.get("queue")
        self._is_ready = True
        self.children_changed(pids)

    def children_changed(self, pids: Mapping[str, int]) -> None:
        """Publish the new process ids."""
        if not self._is_ready:
            return
        self._directory.publish(
            {
                "api_url": self.api_url,
                "flower_url": self.flower_url,
                "ports": {"api": self._settings.api.port, "flower": self._settings.flower.port},
                "data_dir": str(self._directory.root),
                "logs": str(self._directory.logs),
                "model": self._settings.model.public_name,
                "database_url": self._plan.database_url,
                "broker_url": self._plan.broker_url,
                "pid": os.getpid(),
                "children": dict(pids),
            }
        )

    def rows(self) -> list[tuple[str, str]]:
        """What a user wants to know now."""
        model = self._settings.model
        rows = [
            ("API", f"{self.api_url}/docs"),
            ("Flower", self.flower_url),
            ("Data", str(self._directory.root)),
            ("Logs", str(self._directory.logs)),
            ("Model", self._fact("name") or model.public_name),
            ("Quantization", self._fact("quantization") or model.quantization or "as loaded"),
            ("Device", self._fact("device") or model.device or "as chosen"),
            *engine_rows(self._model),
        ]
        if model.name == resolve_model(DEFAULT_MODEL):
            rows.append(("A real model", f"penstock up {_HINT}"))
        for name, prompts in waiting_for_others(self._queue, model.public_name).items():
            rows.append(
                ("Waiting", f"{prompts:,} prompts for {name}, which this stack does not run")
            )
        if not self._settings.api.keys:
            rows.append(("Access", self._access()))
        return [*rows, ("Stop", "Ctrl-C")]

    def _access(self) -> str:
        if is_loopback(self._settings.api.host):
            return "this machine, until there is a key: `penstock keys create`"
        return "with keys of `penstock keys`"

    def _fact(self, name: str) -> str:
        value = self._model.get(name)
        return value if isinstance(value, str) else ""

    def _ask(self) -> Mapping[str, object]:
        api = self._settings.api
        return get_json(api.host, api.port, "/stats", bearer(api))


def _url(host: str, port: int) -> str:
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def engine_rows(model: Mapping[str, object]) -> list[tuple[str, str]]:
    """How `/stats`' model is run: with what, on how many rows, in how much memory, and why so."""
    runner, rows, express = (model.get(name) for name in ("runner", "max_rows", "express_rows"))
    if not isinstance(runner, str) or not isinstance(rows, int):
        return []
    parts = [runner, f"{rows:,} rows and {express} for chats"]
    if isinstance(context := model.get("context"), int):
        parts.append(f"of {context:,} tokens at most")
    if isinstance(tokens := model.get("kv_tokens"), int) and tokens:
        size = model.get("kv_bytes")
        megabytes = f" ({size / 1e6:,.0f} MB)" if isinstance(size, int) else ""
        parts.append(f"K/V of {tokens:,} tokens{megabytes}")
    notes = model.get("notes")
    return [
        ("Engine", ", ".join(parts)),
        *(("", str(note)) for note in (notes if isinstance(notes, list) else ())),
    ]


def waiting_for_others(queue: object, served: str) -> dict[str, int]:
    """Open prompts by model in `/stats`' queue, of all models but the one served."""
    waiting: dict[str, int] = {}
    for lane in queue if isinstance(queue, list) else ():
        name, prompts = lane.get("model"), lane.get("open_requests")
        if isinstance(name, str) and isinstance(prompts, int) and name != served and prompts:
            waiting[name] = waiting.get(name, 0) + prompts
    return waiting
