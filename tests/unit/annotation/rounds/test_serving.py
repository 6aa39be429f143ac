"""The model of a manifest beside the one that is served now."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from penstock.annotation.rounds.manifest import Model
from penstock.annotation.rounds.serving import check, differences, model_of, versions_of
from penstock.errors import InvalidRequest
from penstock.schemas.health import CacheStats, ModelStats, Stats
from tests.unit.annotation.rounds.test_manifest import a_manifest

TOLD: Mapping[str, object] = {
    "name": "tiny",
    "loaded": True,
    "revision": "abc",
    "dtype": "float32",
    "device": "cpu",
    "quantization": "none",
    "weights": {"model.safetensors": "3f"},
    "versions": {"torch": "2.13.0", "python": "3.12.1"},
}


def stats(**changes: object) -> Stats:
    return Stats(
        conversations=0,
        cache=CacheStats(size=0, hits=0, misses=0),
        queue_depth=0,
        queue=[],
        model=ModelStats.model_validate({**TOLD, **changes}),
        workers=[],
    )


THEN = a_manifest().model_copy(
    update={
        "models": {"tiny": model_of(stats(), "tiny")},
        "versions": versions_of(stats()),
    }
)


def test_a_manifest_has_what_the_service_tells_of_its_model() -> None:
    assert model_of(stats(), None) == Model(
        name="tiny",
        revision="abc",
        dtype="float32",
        device="cpu",
        quantization="none",
        weights={"model.safetensors": "3f"},
    )
    assert model_of(stats(device="unknown"), "other") == Model(name="other")


def test_the_same_service_differs_in_nothing() -> None:
    check(THEN, stats())
    assert list(differences(THEN, stats())) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dtype": "bfloat16"}, "tiny: dtype is bfloat16 now, was float32."),
        ({"revision": "def"}, "tiny: revision is def now, was abc."),
        ({"versions": {"torch": "2.14.0"}}, "torch is 2.14.0 now, was 2.13.0."),
        (
            {"weights": None},
            "tiny: the service does not tell its weights, so they are not compared.",
        ),
    ],
)
def test_what_is_otherwise_is_said_in_a_sentence(
    changes: Mapping[str, object], sentence: str
) -> None:
    check(THEN, stats(**changes))
    assert list(differences(THEN, stats(**changes))) == [sentence]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "other"}, "does not serve tiny, which answered as tiny; it serves other"),
        ({"weights": {"model.safetensors": "4f"}}, "model.safetensors has the hash 4f…, had 3f…"),
    ],
)
def test_another_model_and_other_weights_are_refused(
    changes: Mapping[str, object], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        check(THEN, stats(**changes))
