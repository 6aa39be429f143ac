"""Puts a snapshot together of what was counted and what there is to do. Knows no thread."""

from __future__ import annotations

from batching.meter import Meter
from batching.requests import EngineLane, EngineStats
from batching.scheduler import Load, Scheduler

#: Tries to look at queues that the engine's thread changes meanwhile.
LOOKS = 10


def engine_stats(
    runner: str,
    scheduler: Scheduler,
    meter: Meter,
    now: float,
    *,
    last_step_age: float,
    failures_in_a_row: int,
    draining: bool,
) -> EngineStats:
    """Callable from any thread."""
    load, totals, rates = _load(scheduler), meter.totals, meter.rates(now)
    return EngineStats(
        runner=runner,
        waiting={lane.value: load.waiting.get(lane, 0) for lane in EngineLane},
        running={lane.value: load.running.get(lane, 0) for lane in EngineLane},
        oldest_waiting={
            lane.value: max(0.0, now - load.oldest.get(lane, now)) for lane in EngineLane
        },
        micro_batches=load.micro_batches,
        row_limit=load.row_limit,
        steps=totals.steps,
        engine_seconds=totals.seconds,
        tokens_in=totals.tokens_in,
        tokens_cached=totals.tokens_cached,
        tokens_out=totals.tokens_out,
        tokens_read=totals.tokens_read,
        tokens_needed=totals.tokens_needed,
        padded_share=totals.padded_share,
        padded_share_keys=totals.padded_share_keys,
        kv_tokens=load.kv_tokens,
        kv_used=load.kv_used,
        kv_cached=load.kv_cached,
        rows_per_step=rates.rows_per_step,
        tokens_per_s=rates.tokens_per_s,
        ttft=rates.ttft,
        time_per_token=rates.time_per_token,
        busy_share=rates.busy_share,
        last_step_age=last_step_age,
        failures_in_a_row=failures_in_a_row,
        draining=draining,
    )


def _load(scheduler: Scheduler) -> Load:
    for _ in range(LOOKS):
        try:
            return scheduler.load()
        except RuntimeError:
            continue  # a queue changed while it was looked at
    return Load({}, {})
