"""Which model a service serves, with which software, as a manifest writes it down.

Reads `/stats` and compares; posts no job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.annotation.rounds.manifest import Manifest, Model
from penstock.errors import InvalidRequest
from penstock.schemas.health import Stats

#: What a manifest calls otherwise than a sentence does.
_WORDS = {"device_name": "device", "weights": "weight files"}


def model_of(stats: Stats, name: str | None) -> Model:
    """The model `name`; None is the one that is served by itself. Of any other than the newest
    worker's the service tells the name alone."""
    if name not in (None, stats.model.name):
        return Model(name=name or "")
    told = stats.model.model_dump()
    known = {key: told[key] for key in Model.model_fields if told.get(key) not in (None, "unknown")}
    return Model.model_validate(known)


def versions_of(stats: Stats) -> dict[str, str]:
    """The service's libraries by name."""
    return dict(stats.model.versions)


def check(then: Manifest, stats: Stats) -> None:
    """Raise InvalidRequest where the service answers by another model, or other weights."""
    for voter, model in then.models.items():
        now = model_of(stats, model.name)
        if model.name not in _names(stats):
            raise InvalidRequest(
                f"The service does not serve {model.name}, which answered as {voter}; "
                f"it serves {', '.join(sorted(_names(stats)))}.",
                param="models",
            )
        if model.weights and now.weights and model.weights != now.weights:
            raise InvalidRequest(
                f"The weights of {model.name} are others than when {voter} answered: "
                f"{_first_difference(model.weights, now.weights)}.",
                param="models",
            )


def differences(then: Manifest, stats: Stats) -> Iterator[str]:
    """A sentence for all that is otherwise now and may move an answer."""
    for model in then.models.values():
        now = model_of(stats, model.name)
        for key, value in model:
            other = getattr(now, key)
            if key in ("name", "weights") or other == value or None in (value, other):
                continue
            word = _WORDS.get(key, key)
            yield f"{model.name}: {word} is {other} now, was {value}."
        if model.weights and not now.weights:
            yield f"{model.name}: the service does not tell its weights, so they are not compared."
    versions = versions_of(stats)
    for name, was in then.versions.items():
        if name in versions and versions[name] != was:
            yield f"{name} is {versions[name]} now, was {was}."


def _names(stats: Stats) -> set[str]:
    return {stats.model.name, *(worker.model for worker in stats.workers)}


def _first_difference(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    file = next(name for name in sorted({*then, *now}) if then.get(name) != now.get(name))
    return f"{file} has the hash {_short(now.get(file))}, had {_short(then.get(file))}"


def _short(checksum: str | None) -> str:
    return "none" if checksum is None else f"{checksum[:12]}…"
