"""What is taken for a webhook of the service, and what is not."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from standardwebhooks import Webhook

from penstock import webhooks
from penstock.errors import InvalidRequest
from penstock.webhooks import InvalidSignature

SECRET, OTHER = "whsec_c2VjcmV0LXNlY3JldA==", "whsec_b3RoZXItb3RoZXI="
BODY = json.dumps(
    {
        "id": "evt_1",
        "object": "event",
        "type": "batch.completed",
        "created_at": 5,
        "data": {"id": "batch_ü"},
    },
    ensure_ascii=False,
)


def signed(secret: str = SECRET, body: str = BODY, age: float = 0) -> dict[str, str]:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("msg_1", at, body),
    }


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
def test_a_signed_event_is_read(body: str | bytes) -> None:
    event = webhooks.verify(body, signed(), SECRET)

    assert (event.type, event.data.id, event.id) == ("batch.completed", "batch_ü", "evt_1")


def test_while_the_secret_is_changed_either_signature_counts() -> None:
    headers = signed()
    headers["Webhook-Signature"] = (
        f"{signed(OTHER)['Webhook-Signature']} " + (headers["Webhook-Signature"])
    )

    for secret in (SECRET, OTHER):
        assert webhooks.verify(BODY, headers, secret).data.id == "batch_ü"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY + " ", signed()),
        (BODY, signed(OTHER)),
        (BODY, signed(age=3_600)),
        (BODY, {}),
        (BODY, {**signed(), "Webhook-Signature": "nonsense"}),
        (BODY, {**signed(), "Webhook-Signature": "v1,%%%"}),
        (BODY, {**signed(), "Webhook-Timestamp": "soon"}),
        (b"\xff", signed()),
    ],
)
def test_anything_else_is_refused(body: str | bytes, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidSignature):
        webhooks.verify(body, headers, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a"])
def test_a_secret_that_is_none_is_said_to_be(secret: str) -> None:
    with pytest.raises(InvalidRequest, match="whsec_"):
        webhooks.verify(BODY, signed(), secret)
