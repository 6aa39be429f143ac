"""Shares of threads: bulk never takes the ones kept for chats."""

from __future__ import annotations

import pytest

from storage.states import Lane
from workers.lanes import LaneShares, LaneSizes


@pytest.mark.parametrize(("rows", "bulk"), [(1, 3), (64, 3), (65, 4), (256, 6)])
def test_bulk_gets_a_thread_for_each_shard_that_fits_and_two_more(rows: int, bulk: int) -> None:
    assert LaneSizes(rows, express_rows=8).bulk == bulk


@pytest.mark.parametrize(("rows", "ahead"), [(1, 16), (64, 16), (128, 32), (256, 64)])
def test_a_quarter_of_the_rows_that_run_may_be_admitted_ahead(rows: int, ahead: int) -> None:
    assert LaneSizes(rows, express_rows=8).admit_ahead == ahead


@pytest.mark.parametrize(
    ("pace", "claimed", "waiting"),
    [(0, 64, 64), (60, 64, 64), (200, 200, 64), (400, 400, 100), (1e6, 1_024, 256)],
)
def test_a_fast_engine_gets_a_second_of_rows_at_once(
    pace: float, claimed: int, waiting: int
) -> None:
    sizes = LaneSizes(64, express_rows=8)
    assert sizes.claimed(pace) == claimed
    assert sizes.full(pace) == 64 + waiting


def test_as_many_chats_as_run_at_once_have_a_thread_each() -> None:
    assert LaneSizes(64, express_rows=8).express == 8


def test_a_lane_that_is_full_refuses_at_once_and_leaves_the_other_alone() -> None:
    sizes = LaneSizes(rows=1, express_rows=1)
    shares = LaneShares(sizes)
    for _ in range(sizes.bulk + sizes.tails):
        assert shares.any_free(Lane.BULK)
        assert shares.take(Lane.BULK)
    assert not shares.any_free(Lane.BULK)
    assert not shares.take(Lane.BULK)
    assert shares.take(Lane.EXPRESS)
    shares.give_back(Lane.BULK)
    assert shares.take(Lane.BULK)


def test_silence_lasts_until_a_message_comes() -> None:
    shares = LaneShares(LaneSizes(1, 1))
    assert shares.silence() == float("inf")
    shares.message_came()
    assert shares.silence() < 60
