"""`/webhooks/…`: endpoints as OpenAI's client knows them, and the log of deliveries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Event = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
EVENTS: tuple[Event, ...] = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
)
Events = Annotated[
    list[Event], Field(min_length=1, max_length=len(EVENTS), description="Which are sent.")
]
Url = Annotated[
    str,
    Field(
        max_length=2_048,
        description="http or https, at a public address.",
        json_schema_extra={"format": "uri", "pattern": "^https?://"},
    ),
]
Name = Annotated[str, Field(max_length=256)]


class NewEndpoint(BaseModel):
    """`POST /webhooks/endpoints`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url
    event_types: Events = Field(default_factory=lambda: list(EVENTS))
    name: Name = ""
    enabled: bool = True


class EndpointChanges(BaseModel):
    """`POST /webhooks/endpoints/{id}`: what is given is changed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url | None = None
    event_types: Events | None = None
    name: Name | None = None
    enabled: bool | None = None


class RotateSecret(BaseModel):
    """`POST /webhooks/endpoints/{id}/rotate-secret`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keep_old_secret_active_for_24_hours: bool | None = Field(
        default=None, description="Both sign meanwhile. Default: true; under /v1, as there, false."
    )


class Endpoint(BaseModel):
    """Where events go. `callbacks` is the one that signs for the `callback_url` of jobs."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str | None = Field(description="Null for `callbacks`.")
    event_types: list[str]
    enabled: bool
    signing_secret_hint: str = Field(description="The last characters of the secret.")
    created_at: int = Field(description="Seconds since 1970.")
    updated_at: int


class EndpointWithSecret(Endpoint):
    """The only answer that has the secret: to its making, and to its rotation."""

    signing_secret: str = Field(description="`whsec_…`, as Standard Webhooks has it.")


class EndpointList(BaseModel):
    """Newest first."""

    object: Literal["list"] = "list"
    data: list[Endpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EndpointDeleted(BaseModel):
    """It is gone, with its deliveries."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class Delivery(BaseModel):
    """One event on its way to one receiver."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: str = Field(description="The `webhook-id` of all its attempts.")
    event_type: str
    request_id: str = Field(description="The job.")
    endpoint_id: str
    url: str
    status: Literal["pending", "delivering", "delivered", "dead"]
    attempts: int
    status_code: int | None = Field(description="Of the last answer.")
    last_error: str | None
    next_attempt_at: int | None
    created_at: int = Field(description="Seconds since 1970.")
    ended_at: int | None


class DeliveryList(BaseModel):
    """Newest first."""

    object: Literal["list"] = "list"
    data: list[Delivery]
    first_id: str | None
    last_id: str | None
    has_more: bool
