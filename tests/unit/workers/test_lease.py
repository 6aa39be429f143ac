"""A lease's book-keeping, without database or engine."""

from __future__ import annotations

from dataclasses import replace

from storage.records import ClaimedRequest, ClaimedShard
from storage.states import Lane
from workers.lease import Lease, Leases


def make_lease(prompts: int = 2, shard: int = 7, epoch: int = 3) -> Lease:
    requests = tuple(ClaimedRequest(n, (("user", f"prompt {n}"),)) for n in range(prompts))
    return Lease(
        ClaimedShard(shard, epoch, "batch_1", Lane.BULK, False, "owner", {}, None, requests)
    )


def test_a_lease_is_over_when_every_prompt_is_stored() -> None:
    lease = make_lease()
    lease.stored(0, failed=False, tokens=5)
    assert not lease.over
    lease.stored(1, failed=True, tokens=0)
    assert lease.over
    summary = lease.summary()
    assert (summary["shard"], summary["ok"], summary["failed"]) == (7, 1, 1)
    assert "lost" not in summary and "returned" not in summary


def test_an_outcome_stored_twice_counts_once() -> None:
    lease = make_lease()
    lease.stored(0, failed=False, tokens=5)
    lease.stored(0, failed=False, tokens=5)
    assert (lease.ok, lease.tokens, lease.open_count) == (1, 5, 1)


def test_prompts_given_back_end_the_lease_and_show_in_the_summary() -> None:
    lease = make_lease()
    lease.stored(0, failed=False, tokens=1)
    lease.give_back(1)
    assert lease.over
    assert lease.summary()["returned"] == 1


def test_losing_a_lease_ends_it_and_tells_so_only_once() -> None:
    lease = make_lease()
    assert lease.lose()
    assert not lease.lose()
    assert lease.over and lease.summary()["lost"] is True


def test_a_lease_that_is_over_cannot_be_lost_again() -> None:
    lease = make_lease(prompts=1)
    lease.stored(0, failed=False, tokens=1)
    assert not lease.lose()


def test_a_shard_without_open_prompts_is_over_at_once() -> None:
    assert make_lease(prompts=0).over


def test_a_request_id_finds_its_lease_and_only_under_its_own_epoch() -> None:
    leases, lease = Leases(), make_lease()
    leases.add(lease)
    assert leases.find(lease.request_id(1)) == (lease, 1)
    assert leases.find("7.4.1") is None
    leases.discard(lease)
    assert leases.find(lease.request_id(1)) is None


def test_the_summary_tells_of_first_tokens_and_of_prompts_that_were_known() -> None:
    lease = make_lease(prompts=3)
    lease.measured(0.25, 10)
    lease.measured(0.75, 0)
    lease.measured(None, 5)
    summary = lease.summary()
    assert (summary["ttft"], summary["cached_tokens"]) == (0.5, 15)
    assert not {"ttft", "cached_tokens"} & make_lease().summary().keys()


def test_a_jobs_time_ends_on_the_clock_of_this_process() -> None:
    shard = replace(make_lease().shard, seconds_left=30.0)
    assert Lease(shard, clock=lambda: 100.0).deadline == 130
    assert make_lease().deadline is None


def test_time_without_confirmation_is_measured_by_the_given_clock() -> None:
    now = [100.0]
    lease = Lease(make_lease().shard, clock=lambda: now[0])
    now[0] = 130.0
    assert lease.unconfirmed_for() == 30
    lease.extend()
    assert lease.unconfirmed_for() == 0
