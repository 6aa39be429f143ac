"""From the model's settings to a runner that is ready, and the engine's limits that fit it.

Part of the composition root in `runtime.py`. Imports torch only where a real model is loaded.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Final

from batching.requests import EngineConfig
from models.runner import ModelInfo, Runner
from penstock import telemetry
from penstock.settings import FAKE_MODEL, ModelSettings

log = telemetry.get_logger(__name__)

#: Where none are set: with more at once devices are hardly faster, and a crash repeats more.
MOST_ROWS: Final = 256


def load_runner(model: ModelSettings) -> Runner:
    """The fake runner without torch in memory, or the real one."""
    if model.name == FAKE_MODEL:
        from models.fake import FakeRunner

        return FakeRunner(
            tokens_per_second=model.fake_tokens_per_second, dangerous=model.fake_dangerous
        )
    from models.environment import names_hub_model, prepare_environment

    hub_allowed = names_hub_model(model.name)
    prepare_environment(hub_allowed=hub_allowed)
    from models.loader import LoadOptions, load

    started = time.monotonic()
    runner = load(
        LoadOptions(
            name=model.name,
            revision=model.revision,
            quantization=model.quantization,
            device=model.device,
            threads=model.threads,
            hub_allowed=hub_allowed,
            runner=model.runner,
            kv_tokens=model.kv_tokens,
            kv_share=model.kv_share,
            max_rows=model.max_rows,
            express_rows=model.express_rows,
            template_args=model.template_args,
        )
    )
    log.info("model.loaded", seconds=round(time.monotonic() - started, 1), **asdict(runner.info))
    return runner


def engine_config(model: ModelSettings, info: ModelInfo) -> EngineConfig:
    """Limits of admission: as set, but never more rows or tokens than the runner has room for."""
    defaults = EngineConfig()
    rows = info.max_rows or model.max_rows or defaults.max_rows
    config = EngineConfig(
        max_rows=min(rows, model.max_rows or MOST_ROWS),
        express_rows=model.express_rows,
        step_tokens=model.step_tokens or info.step_tokens or defaults.step_tokens,
        kv_tokens=info.kv_tokens or model.kv_tokens or defaults.kv_tokens,
        min_prefix=model.min_prefix,
        max_batch_tokens=model.max_batch_tokens,
        max_wait=model.max_wait,
    )
    log.info(
        "engine.configured",
        runner=info.runner,
        notes=list(info.notes),
        quantization=info.quantization,
        rows=config.max_rows,
        express_rows=config.express_rows,
        longest_row=info.context,
        step_tokens=config.step_tokens,
        kv_tokens=info.kv_tokens,
        kv_bytes=info.kv_bytes,
    )
    return config
