"""Webhooks sent for real: from the database to receivers on sockets of their own."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from openai import OpenAI
from openai.types.webhooks import BatchCompletedWebhookEvent
from standardwebhooks import Webhook, WebhookVerificationError

from storage import endpoints
from storage.database import Database
from storage.delivery_log import Delivery
from storage.states import DeliveryState
from tests.support import jobs as storing
from tests.support.receivers import Receiver, drips, hangs, receiving, replies
from tests.support.waiting import until
from tests.support.webhooks import add_endpoint, end_job, log, make_due
from tests.support.workers import Processes
from workers.addresses import Policy, parse_networks
from workers.egress import Egress
from workers.webhooks import Sender

MONTH = 30 * 86_400.0

MakeSender = Callable[..., Sender]


@pytest.fixture
def make_sender(database: Database) -> Iterator[MakeSender]:
    started: list[Sender] = []

    def make(timeout: float = 5.0, concurrency: int = 16) -> Sender:
        egress = Egress(Policy(parse_networks(["127.0.0.0/8"])), timeout=timeout)
        sender = Sender(database, egress, concurrency=concurrency, retention=MONTH)
        sender.start()
        started.append(sender)
        return sender

    yield make
    for sender in started:
        assert sender.stop()


def _only(database: Database) -> Delivery:
    (delivery,) = log(database)
    return delivery


def _tried(database: Database, attempts: int) -> Callable[[], bool]:
    def ended() -> bool:
        one = _only(database)
        return one.attempts == attempts and one.state != DeliveryState.DELIVERING

    return ended


def test_what_arrives_is_verified_by_openais_client_and_by_standard_webhooks(
    database: Database, make_sender: MakeSender
) -> None:
    with receiving() as of_owner, receiving() as of_job:
        endpoint, first = add_endpoint(database, of_owner.url)
        with database.begin() as conn:
            endpoint_and_secret = endpoints.rotate(conn, storing.OWNER, endpoint.id, overlap=60)
            callbacks = endpoints.rotate(conn, storing.OWNER, endpoints.CALLBACKS, overlap=0)
        assert endpoint_and_secret is not None and callbacks is not None
        second, own = endpoint_and_secret[1], callbacks[1]
        batch = end_job(database, of_job.url)
        make_sender()
        until("both have it", lambda: bool(of_owner.got and of_job.got))

    for receiver, secrets in ((of_owner, (first, second)), (of_job, (own,))):
        (got,) = receiver.got
        for secret in secrets:
            event = OpenAI(api_key="-", webhook_secret=secret).webhooks.unwrap(
                got.body, got.headers
            )
            assert isinstance(event, BatchCompletedWebhookEvent)
            assert (event.data.id, event.id) == (batch.id, got.headers["webhook-id"])
            assert Webhook(secret).verify(got.body, got.headers)["type"] == "batch.completed"
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(got.body + b" ", got.headers)
    assert of_owner.got[0].body == of_job.got[0].body  # one event, whoever hears of it
    with pytest.raises(WebhookVerificationError):
        Webhook(own).verify(of_owner.got[0].body, of_owner.got[0].headers)


def test_an_event_keeps_its_id_over_attempts_until_one_succeeds(
    database: Database, make_sender: MakeSender
) -> None:
    with receiving(replies(500)) as receiver:
        end_job(database, receiver.url)
        make_sender()
        until("it failed", _tried(database, 1))
        receiver.behave = replies(204)
        make_due(database)
        until("it came", _tried(database, 2))

    delivery = _only(database)
    assert (delivery.state, delivery.status_code) == (DeliveryState.DELIVERED, 204)
    assert delivery.last_error is None and delivery.next_at is None
    assert [got.headers["webhook-id"] for got in receiver.got] == 2 * [delivery.event_id]


def test_a_receiver_that_is_gone_disables_its_endpoint(
    database: Database, make_sender: MakeSender
) -> None:
    with receiving(replies(410)) as receiver:
        endpoint, _ = add_endpoint(database, receiver.url)
        end_job(database)
        make_sender()

        def is_off() -> bool:
            with database.begin() as conn:
                found = endpoints.get(conn, storing.OWNER, endpoint.id)
            return found is not None and not found.enabled

        until("the endpoint is off", is_off)
    assert (_only(database).state, _only(database).attempts) == (DeliveryState.DEAD, 1)


def test_a_receiver_says_when_to_come_again_and_cannot_send_on(
    database: Database, make_sender: MakeSender
) -> None:
    with receiving() as aim, receiving(replies(503, Retry_After=3_000)) as receiver:
        end_job(database, receiver.url)
        make_sender()
        until("it is asked to wait", _tried(database, 1))
        waits = _only(database)
        receiver.behave = replies(308, Location=aim.url)
        make_due(database)
        until("it is sent elsewhere", _tried(database, 2))

    assert waits.next_at is not None
    assert (waits.next_at - waits.created_at).total_seconds() > 2_900
    assert "redirects are not followed" in str(_only(database).last_error)
    assert aim.got == []


def test_an_address_that_is_not_allowed_any_more_gets_nothing(
    database: Database, make_sender: MakeSender
) -> None:
    end_job(database, "http://10.0.0.1:8080/?token=planted")
    make_sender()

    until("it was refused", _tried(database, 1))

    assert "not public" in str(_only(database).last_error)
    assert "planted" not in str(_only(database).last_error)


def test_receivers_that_drip_and_hang_delay_no_other(
    database: Database, make_sender: MakeSender
) -> None:
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(receiving(behave)) for behave in (drips, hangs)]
        good = open_ones.enter_context(receiving())
        ids = [add_endpoint(database, receiver.url)[0].id for receiver in (*slow, good)]
        for _ in range(12):
            end_job(database)
        make_sender(timeout=100)  # so that no attempt to the slow ones is over before the end

        until("the good one has all", lambda: len(good.got) == 12)
        states = [Counter(d.state for d in log(database, endpoint_id=id)) for id in ids[:2]]

    # Two of each are on their way since the beginning, and hold nobody up.
    assert states == 2 * [{DeliveryState.DELIVERING: 2, DeliveryState.PENDING: 10}]
    assert [receiver.most_at_once for receiver in slow] == [2, 2]


def test_several_senders_send_each_event_once_and_two_at_once_at_most(
    database: Database, make_sender: MakeSender
) -> None:
    def slowly(receiver: Receiver, connection: object) -> None:
        receiver.closing.wait(0.01)
        replies(200)(receiver, connection)  # type: ignore[arg-type]

    with receiving(slowly) as receiver:
        add_endpoint(database, receiver.url)
        for _ in range(20):
            end_job(database)
        for _ in range(3):
            make_sender()
        until(
            "all are delivered",
            lambda: {d.state for d in log(database)} == {DeliveryState.DELIVERED},
        )

    assert Counter(got.headers["webhook-id"] for got in receiver.got).most_common(1)[0][1] == 1
    assert len(receiver.got) == 20
    assert receiver.most_at_once <= 2


def test_the_dispatchers_process_sends_and_ends_in_time_while_a_receiver_hangs(
    database: Database, processes: Processes
) -> None:
    with receiving() as good, receiving(hangs) as slow:
        _, secret = add_endpoint(database, good.url)
        add_endpoint(database, slow.url)
        process = processes.start("dispatch", PENSTOCK_WEBHOOKS__ALLOWED_NETWORKS="127.0.0.0/8")
        end_job(database)
        until("it is delivered", lambda: bool(good.got and slow.got))
        until(
            "and written down", lambda: DeliveryState.DELIVERED in {d.state for d in log(database)}
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0

    told = processes.log_of(process)
    assert "webhook.delivered" in told
    assert not any(planted in told for planted in ("planted", secret, "whsec_", good.url))
