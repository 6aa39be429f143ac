"""Checks what a service's webhook sends. Knows the signature's scheme, Standard Webhooks; the
extra `webhooks` brings its library."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from penstock.errors import InvalidRequest, PenstockError


class InvalidSignature(PenstockError):
    """The webhook was not signed with this secret, or too long ago."""

    code = "invalid_signature"


class EventData(BaseModel):
    """What an event is about."""

    id: str


class Event(BaseModel):
    """A webhook's body. `type` is `batch.completed`, `batch.failed`, `batch.expired` or
    `batch.cancelled`; `id` stays the same when an event is delivered again."""

    id: str | None = None
    type: str
    created_at: int | None = None  #: seconds since 1970
    data: EventData


def verify(body: bytes | str, headers: Mapping[str, str], secret: str) -> Event:
    """The event in a webhook's body, as it came. Raises InvalidSignature unless it was signed with
    `secret` (`whsec_…`) in the last five minutes.

        event = penstock.webhooks.verify(body, request.headers, secret)
        if event.type == "batch.completed":
            answers = client.job(event.data.id).answers()
    """
    # Imported here: only receivers have to install it.
    from standardwebhooks import Webhook, WebhookVerificationError
    from standardwebhooks.webhooks import EmptyWebhookSecretError

    try:
        webhook = Webhook(secret)
    except (EmptyWebhookSecretError, ValueError):
        raise InvalidRequest("The secret is not of the form whsec_….", param="secret") from None
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: headers or a body of another form
        raise InvalidSignature from None
    return Event.model_validate_json(body)
