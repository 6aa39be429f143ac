"""The engine's limits: what is set, within what the runner has room for."""

from __future__ import annotations

from dataclasses import replace

from batching.requests import EngineConfig
from models.runner import ModelInfo
from penstock.settings import ModelSettings
from workers.loading import engine_config

INFO = ModelInfo("m", 1, 1, "cpu", "fp32", 512, "packed", max_rows=96, kv_tokens=7_000)


def test_what_is_not_set_is_as_the_runner_advises() -> None:
    config = engine_config(ModelSettings(), replace(INFO, step_tokens=384))

    assert (config.max_rows, config.kv_tokens, config.step_tokens) == (96, 7_000, 384)


def test_a_runner_that_advises_nothing_gets_the_engines_own_limits() -> None:
    config = engine_config(ModelSettings(), ModelInfo("m", 1, 1, "cpu", "fp32", 512, "padded"))

    assert config == EngineConfig()


def test_rows_that_nobody_set_are_bounded_and_set_ones_are_not() -> None:
    roomy = replace(INFO, max_rows=4_096)

    assert engine_config(ModelSettings(), roomy).max_rows == 256
    assert engine_config(ModelSettings(max_rows=1_000), roomy).max_rows == 1_000


def test_what_is_set_counts_as_far_as_the_runner_has_room() -> None:
    asked = ModelSettings(
        max_rows=500, step_tokens=128, kv_tokens=9_000, min_prefix=0, express_rows=3
    )

    config = engine_config(asked, INFO)

    assert (config.max_rows, config.kv_tokens) == (96, 7_000)
    assert (config.step_tokens, config.min_prefix, config.express_rows) == (128, 0, 3)
    assert engine_config(ModelSettings(max_rows=8), INFO).max_rows == 8
