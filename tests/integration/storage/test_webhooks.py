"""Webhook events in the database: recorded with a job's end, claimed in turns, settled under a
fence."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from sqlalchemy import exc, text

from penstock.errors import Conflict
from storage import deliveries, delivery_log, endpoints, leases, lifecycle
from storage.database import Database
from storage.deliveries import PATIENCE, RING, Attempt, Claimed
from storage.endpoints import CALLBACKS, MAX_ENDPOINTS
from storage.receivers import FIRST_REST
from storage.states import DELIVERY_TRANSITIONS, DeliveryState, Lane
from tests.support import jobs
from tests.support.webhooks import add_endpoint, claim, end_job, log, make_due

CALLBACK = "https://job.example/done?token=secret"
OTHER = "another owner"
SUCCESS = Attempt(delivered=True, status=200)
FAILURE = Attempt(delivered=False, status=500, error="It answered 500.", delay=3_600)


def _settle(database: Database, delivery: Claimed, attempt: Attempt) -> DeliveryState | None:
    with database.begin() as conn:
        return deliveries.settle(conn, delivery, attempt)


def _fill(database: Database, receivers: dict[str, int], owner: str = jobs.OWNER) -> None:
    """So many due deliveries for each callback host, the oldest first."""
    with database.begin() as conn:
        endpoints.ensure_callbacks(conn, owner)
        for host, count in receivers.items():
            conn.execute(
                text("""
                    INSERT INTO webhook_deliveries
                        (id, endpoint_id, event, payload, state, owner, url, receiver, next_at)
                    SELECT 'whd_' || :host || n, e.id, 'batch.completed', '{"id": "evt"}',
                           'pending', e.owner, 'https://' || :host || '/', 'o@' || :host,
                           now() - make_interval(secs => :count - n)
                    FROM webhook_endpoints e, generate_series(1, :count) n
                    WHERE e.callbacks AND e.owner = :owner
                """),
                {"host": host, "count": count, "owner": owner},
            )


def test_the_end_of_a_job_is_recorded_once_for_everyone_who_is_to_hear_of_it(
    database: Database,
) -> None:
    all_events, _ = add_endpoint(database)
    add_endpoint(database, events=("batch.failed",))
    add_endpoint(database, enabled=False)
    add_endpoint(database, owner=OTHER)

    batch = end_job(database, CALLBACK)
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == []  # again changes nothing

    found = {delivery.endpoint_id: delivery for delivery in log(database)}
    assert found.keys() == {all_events.id, CALLBACKS}
    assert found[CALLBACKS].url == CALLBACK
    assert {d.event_id for d in found.values()} == {found[CALLBACKS].event_id}
    claimed, _ = claim(database)
    for delivery in claimed:
        assert delivery.payload.pop("created_at")
        assert delivery.payload == {
            "id": found[CALLBACKS].event_id,
            "object": "event",
            "type": "batch.completed",
            "data": {"id": batch.id},
        }
    assert log(database, OTHER) == []


def test_each_ending_has_its_event_and_another_try_ends_anew(database: Database) -> None:
    add_endpoint(database)
    failed = jobs.store(database, 1)
    (shard,) = jobs.claim(database)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
        lifecycle.finalize(conn)
        lifecycle.retry_failed(conn, jobs.OWNER, failed.id)
    jobs.run_all(database)
    cancelled, expired = jobs.store(database, 1), jobs.store(database, 1, expires_in=0.001)
    with database.begin() as conn:
        lifecycle.finalize(conn)
        lifecycle.request_cancel(conn, jobs.OWNER, cancelled.id)
        lifecycle.expire_due(conn)
        lifecycle.close_open(conn)
        lifecycle.finalize(conn)

    told = log(database)

    assert [d.event for d in told if d.batch_id == failed.id] == ["batch.failed", "batch.completed"]
    assert {(d.batch_id, d.event) for d in told[2:]} == {
        (cancelled.id, "batch.cancelled"),
        (expired.id, "batch.expired"),
    }
    assert len({d.event_id for d in told}) == 4


def test_a_transaction_that_is_rolled_back_ends_no_job_and_records_nothing(
    database: Database,
) -> None:
    add_endpoint(database)
    batch = jobs.store(database, 1)
    jobs.run_all(database)
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
        conn.rollback()

    assert log(database) == []
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
    assert len(log(database)) == 1


def test_an_endpoint_that_is_being_deleted_holds_up_no_end(database: Database) -> None:
    endpoint, _ = add_endpoint(database)
    job = jobs.store(database, 1)
    jobs.run_all(database)
    ended: list[str] = []

    def finalize() -> None:
        with database.begin() as conn:
            ended.extend(lifecycle.finalize(conn))

    ending = threading.Thread(target=finalize)
    with database.begin() as conn:
        assert endpoints.delete(conn, jobs.OWNER, endpoint.id)
        ending.start()
        jobs.await_blocked(database)
    ending.join()

    assert ended == [job.id]
    assert log(database) == []


def test_chats_are_told_only_where_they_ask_for_it(database: Database) -> None:
    add_endpoint(database)
    end_job(database, kind="chat", lane=Lane.EXPRESS)
    asked = end_job(database, CALLBACK, kind="chat", lane=Lane.EXPRESS)

    assert [(d.batch_id, d.endpoint_id) for d in log(database)] == [(asked.id, CALLBACKS)]


def test_two_at_once_to_a_receiver_and_everyone_has_a_turn(database: Database) -> None:
    _fill(database, {"a": 50, "b": 1, "c": 50})

    first, second, third = (claim(database, limit=3)[0] for _ in range(3))

    assert [d.id for d in first] == ["whd_a1", "whd_a2", "whd_c1"]  # the oldest first
    assert [d.id for d in second] == ["whd_b1", "whd_c2"]
    assert third == []
    assert _settle(database, first[0], SUCCESS) == DeliveryState.DELIVERED
    assert [d.id for d in claim(database)[0]] == ["whd_a3"]


def test_an_owner_with_many_receivers_leaves_room_for_the_others(database: Database) -> None:
    _fill(database, dict.fromkeys("abcde", 9))
    _fill(database, {"z": 9}, OTHER)

    first, second = (claim(database, limit=8, share=4)[0] for _ in range(2))

    assert [d.receiver for d in first] == ["o@a", "o@b", "o@c", "o@d", "o@z", "o@z"]
    assert second == []
    _settle(database, first[0], SUCCESS)
    assert [d.receiver for d in claim(database, share=4)[0]] == ["o@e"]  # its turn, by age


def test_senders_at_once_never_have_more_than_two_of_a_receiver(database: Database) -> None:
    _fill(database, {"a": 30, "b": 30})
    claimed: list[Claimed] = []

    def send() -> None:
        for _ in range(5):
            claimed.extend(claim(database)[0])

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert Counter(d.receiver for d in claimed) == {"o@a": 2, "o@b": 2}


def test_a_receiver_that_does_not_answer_rests_and_is_tried_by_one(database: Database) -> None:
    _fill(database, {"a": 9, "b": 9})
    silent = Attempt(delivered=False, error="No answer came.", delay=3_600)

    def turn(attempt: Attempt) -> Counter[str]:
        """What is claimed, and comes to this for a; b answers."""
        claimed, _ = claim(database)
        for delivery in claimed:
            _settle(database, delivery, attempt if delivery.receiver == "o@a" else SUCCESS)
        return Counter(delivery.receiver for delivery in claimed)

    def rests(seconds: float) -> bool:
        with database.begin() as conn:
            left = "SELECT extract(epoch FROM paused_until - now()) FROM webhook_receivers"
            return seconds - 5 < float(conn.execute(text(left)).scalar_one()) <= seconds

    def wake() -> None:
        with database.begin() as conn:
            conn.execute(text("UPDATE webhook_receivers SET paused_until = now()"))

    assert turn(silent) == {"o@a": 2, "o@b": 2}
    assert rests(2 * FIRST_REST)  # the second in a row
    assert turn(silent) == {"o@b": 2}
    wake()
    assert turn(silent) == {"o@a": 1, "o@b": 2}
    assert rests(4 * FIRST_REST)
    wake()
    assert turn(replace(FAILURE, pause=600)) == {"o@a": 1, "o@b": 2}  # an answer, to be left alone
    assert rests(600)
    wake()
    assert turn(FAILURE) == {"o@a": 2, "o@b": 1}
    with database.begin() as conn:
        assert conn.execute(text("SELECT count(*) FROM webhook_receivers")).scalar_one() == 0


def test_only_the_epoch_that_has_it_may_settle_a_delivery(database: Database) -> None:
    _fill(database, {"a": 1})
    ((lost,), _) = claim(database, lease=-1)
    with database.begin() as conn:
        assert deliveries.free_lost(conn) == 1
    ((again,), _) = claim(database)

    assert _settle(database, lost, SUCCESS) is None
    assert (again.id, again.attempts) == (lost.id, 2)
    assert _settle(database, again, FAILURE) == DeliveryState.PENDING
    assert _settle(database, again, SUCCESS) is None
    with database.begin() as conn:
        assert deliveries.outcomes(conn) == {"retried": 1}


def test_a_delivery_is_open_until_it_has_ended(database: Database) -> None:
    def is_open() -> bool:
        with database.begin() as conn:
            return deliveries.any_open(conn)

    seen = [is_open()]
    _fill(database, {"a": 1})
    seen.append(is_open())
    ((claimed,), _) = claim(database)
    seen.append(is_open())
    _settle(database, claimed, SUCCESS)
    seen.append(is_open())

    assert seen == [False, True, True, False]


def test_after_three_days_a_delivery_is_dead(database: Database) -> None:
    _fill(database, {"a": 1})
    ((first,), _) = claim(database)
    assert _settle(database, first, FAILURE) == DeliveryState.PENDING
    assert claim(database) == ([], "")  # its next attempt is an hour away
    with database.begin() as conn:
        conn.execute(
            text("UPDATE webhook_deliveries SET created_at = now() - make_interval(secs => :age)"),
            {"age": PATIENCE - 1_800},
        )
    make_due(database)
    ((last,), _) = claim(database)

    assert _settle(database, last, FAILURE) == DeliveryState.DEAD

    (dead,) = log(database)
    assert (dead.attempts, dead.status_code, dead.last_error) == (2, 500, "It answered 500.")
    assert dead.next_at is None and dead.ended_at is not None


def test_what_is_pending_waits_while_its_endpoint_is_disabled(database: Database) -> None:
    endpoint, _ = add_endpoint(database)
    end_job(database)
    with database.begin() as conn:
        assert deliveries.disable(conn, endpoint.id)
        assert not deliveries.disable(conn, "unknown")
    end_job(database)  # of this nothing is recorded

    assert claim(database) == ([], "")
    with database.begin() as conn:
        endpoints.update(conn, jobs.OWNER, endpoint.id, {"enabled": True, "url": "https://new/"})
    assert [d.url for d in claim(database)[0]] == ["https://new/"]


def test_both_secrets_sign_after_a_rotation_until_the_old_one_is_over(database: Database) -> None:
    endpoint, first = add_endpoint(database)
    for _ in range(3):
        end_job(database)
    secrets = []
    with database.begin() as conn:
        _, second = endpoints.rotate(conn, jobs.OWNER, endpoint.id, overlap=60) or (None, "")
    secrets.append([endpoints.encode(s) for s in claim(database, limit=1)[0][0].secrets])
    with database.begin() as conn:
        conn.execute(text("UPDATE webhook_endpoints SET old_secret_until = now()"))
    secrets.append([endpoints.encode(s) for s in claim(database, limit=1)[0][0].secrets])

    assert secrets == [[second, first], [second]]
    with database.begin() as conn:
        found = endpoints.get(conn, jobs.OWNER, endpoint.id)
        assert endpoints.rotate(conn, OTHER, endpoint.id, overlap=0) is None
    assert found is not None and found.hint == second[-4:]
    assert second not in repr(found)


def test_an_owner_has_one_endpoint_for_callbacks_and_a_bound_on_the_others(
    database: Database,
) -> None:
    def post() -> None:
        jobs.store(database, 1, callback_url=CALLBACK)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    for _ in range(MAX_ENDPOINTS):
        add_endpoint(database)

    with pytest.raises(Conflict, match="20"):
        add_endpoint(database)
    with database.begin() as conn:
        assert len(endpoints.list_all(conn, jobs.OWNER)) == MAX_ENDPOINTS
        statement = text("SELECT count(*) FROM webhook_endpoints WHERE callbacks")
        assert conn.execute(statement).scalar_one() == 1
        changed = endpoints.update(conn, OTHER, CALLBACKS, {"enabled": False})
        assert changed is not None and not changed.enabled
        with pytest.raises(Conflict):
            endpoints.delete(conn, jobs.OWNER, CALLBACKS)


def test_a_redelivery_is_the_same_event_with_attempts_of_its_own(database: Database) -> None:
    endpoint, _ = add_endpoint(database)
    end_job(database)
    ((sent,), _) = claim(database)
    with database.begin() as conn, pytest.raises(Conflict, match="at this moment"):
        delivery_log.redeliver(conn, jobs.OWNER, sent.id)
    _settle(database, sent, FAILURE)

    with database.begin() as conn:
        hurried = delivery_log.redeliver(conn, jobs.OWNER, sent.id)
    assert hurried is not None and hurried.id == sent.id
    ((again,), _) = claim(database)
    _settle(database, again, SUCCESS)
    with database.begin() as conn:
        fresh = delivery_log.redeliver(conn, jobs.OWNER, sent.id)
        assert delivery_log.redeliver(conn, OTHER, sent.id) is None
    assert fresh is not None and fresh.id != sent.id
    ((new,), _) = claim(database)

    assert (new.payload, new.attempts, new.receiver) == (sent.payload, 1, sent.receiver)
    with database.begin() as conn:
        deliveries.disable(conn, endpoint.id)
        with pytest.raises(Conflict, match="disabled"):
            delivery_log.redeliver(conn, jobs.OWNER, sent.id)
        assert endpoints.delete(conn, jobs.OWNER, endpoint.id)
    assert _settle(database, new, SUCCESS) is None
    assert log(database) == []


def test_old_deliveries_are_deleted_in_portions(database: Database) -> None:
    _fill(database, {"a": 5})
    with database.begin() as conn:
        conn.execute(text("UPDATE webhook_deliveries SET created_at = now() - interval '2h'"))
    _fill(database, {"b": 1})

    deleted = []
    for _ in range(3):
        with database.begin() as conn:
            deleted.append(deliveries.delete_old(conn, 3_600, limit=3))

    assert deleted == [3, 2, 0]
    assert [d.id for d in log(database)] == ["whd_b1"]


def test_every_change_is_a_legal_transition_and_all_of_them_happen(database: Database) -> None:
    _fill(database, {"a": 4})
    seen: set[tuple[str, str]] = set()

    def states() -> dict[str, DeliveryState]:
        return {delivery.id: delivery.state for delivery in log(database)}

    dead = Attempt(delivered=False, final=True)
    for attempt, age in product((SUCCESS, FAILURE, dead, None), (1.0, -1.0)):
        before = states()
        claimed, _ = claim(database, limit=1, lease=age)
        moved = states()
        with database.begin() as conn:
            deliveries.free_lost(conn)
        if claimed and attempt is not None:
            _settle(database, claimed[0], attempt)
        after = states()
        make_due(database)
        for old, new in ((before, moved), (moved, after)):
            seen |= {(old[id], new[id]) for id in old if old[id] != new[id]}

    assert seen == {(old, new) for old, news in DELIVERY_TRANSITIONS.items() for new in news}
    with pytest.raises(exc.IntegrityError), database.begin() as conn:
        conn.execute(text("UPDATE webhook_deliveries SET state = 'lost'"))


def test_the_ring_is_walked_in_portions(database: Database) -> None:
    hosts = [f"{number:04}" for number in range(RING + 1)]
    _fill(database, dict.fromkeys(hosts, 1))

    first, after = claim(database, limit=2 * RING)
    second, end = claim(database, limit=2 * RING, after=after)

    assert [d.receiver for d in first] == [f"o@{host}" for host in hosts[:RING]]
    assert [d.receiver for d in second] == [f"o@{hosts[RING]}"]
    assert (after, end) == (first[-1].receiver, "")
