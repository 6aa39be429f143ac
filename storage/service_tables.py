"""The tables of what stands around the queue: files, answers kept, keys, webhooks. With those of
`tables.py` they are all that there are.

Knows no query.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from storage.states import DeliveryState
from storage.tables import Id, Time, count, created, one_of
from storage.tables import metadata as metadata

#: What a batch of OpenAI's has beside the job that it is.
openai_batches = Table(
    "openai_batches",
    metadata,
    Column("batch_id", Id, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", Id, nullable=False),
    Column("endpoint", Id, nullable=False),
    Column("completion_window", Id, nullable=False),
    #: Lines that cannot run fail alone, instead of the batch.
    Column("quarantine", Boolean, nullable=False),
    #: Seconds that its output is kept after the batch's end; null: as long as the batch.
    Column("output_lifetime", Integer),
    Column("input_file_id", Id, nullable=False),
    Column("output_file_id", Id, nullable=False),
    Column("error_file_id", Id, nullable=False),
    #: A list of what is wrong with the input file.
    Column("errors", JSONB),
    #: When its file had been read to the end, with whatever outcome.
    Column("read_at", Time),
    Index("ix_openai_batches_owner_batch_id", "owner", "batch_id"),
    Index("ix_openai_batches_unread", "batch_id", postgresql_where=text("read_at IS NULL")),
)

files = Table(
    "files",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False),
    Column("purpose", Id, nullable=False),
    Column("filename", Text, nullable=False),
    #: Null until counted, in a file that is made of a job's outcomes.
    Column("bytes", BigInteger),
    Column("sha256", Id),
    created(),
    Column("expires_at", Time),
    #: The job whose outcomes are the content; null: the content is a blob under the file's id.
    Column("batch_id", Id, ForeignKey("batches.id", ondelete="CASCADE")),
    Index("ix_files_owner_id", "owner", "id"),
    Index("ix_files_batch_id", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    Index("ix_files_uncounted", "batch_id", postgresql_where=text("bytes IS NULL")),
    Index("ix_files_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)

#: Where an answer can be found again. It points at a result and may outlive it: look at both.
response_cache = Table(
    "response_cache",
    metadata,
    #: Of all that makes the answer: model, prompt, parameters, and whose it is.
    Column("digest", LargeBinary, primary_key=True),
    Column("id", BigInteger, Identity(), nullable=False),
    Column("owner", Id, nullable=False),
    Column("batch_id", Id, nullable=False),
    Column("position", Integer, nullable=False),
    created(),
    Index("ix_response_cache_id", "id"),
)

#: What clients keep under names of their own, as JSON text.
client_cache = Table(
    "client_cache",
    metadata,
    Column("owner", Id, primary_key=True),
    Column("key", Id, primary_key=True),
    Column("value", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    created(),
    Column("expires_at", Time, nullable=False),
    Index("ix_client_cache_expires_at", "expires_at"),
)

#: How often an owner's keys were found. Its row is also the lock of those who set keys.
client_cache_reads = Table(
    "client_cache_reads",
    metadata,
    Column("owner", Id, primary_key=True),
    count("hits", BigInteger),
    count("misses", BigInteger),
    postgresql_with={"fillfactor": "50"},
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False),
    Column("name", Text, nullable=False),
    #: HMAC-SHA256 of the key under the server's secret; the key itself is never stored.
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    created(),
    Column("last_used_at", Time),
    Column("expires_at", Time),
    #: May lie ahead: a key that was rotated goes on for a while.
    Column("revoked_at", Time),
    #: Of its owner, by this key; null: what the settings say.
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False),
    #: Empty in the row that signs for the `callback_url` of an owner's jobs.
    Column("url", Text, nullable=False),
    #: The key itself: every signature needs it.
    Column("secret", LargeBinary, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    created(),
    Column("name", Text, nullable=False, server_default=text("''")),
    #: Signs beside `secret` until then, after a rotation.
    Column("old_secret", LargeBinary),
    Column("old_secret_until", Time),
    Column("updated_at", Time, nullable=False, server_default=func.now()),
    Column("callbacks", Boolean, nullable=False, server_default=text("false")),
    Index("ix_webhook_endpoints_owner_id", "owner", "id"),
    Index(
        "ix_webhook_endpoints_callbacks", "owner", unique=True, postgresql_where=text("callbacks")
    ),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column(
        "endpoint_id",
        Id,
        ForeignKey("webhook_endpoints.id", ondelete="CASCADE"),
        nullable=False,
    ),
    #: Its type.
    Column("event", Id, nullable=False),
    #: The event as it is sent; its id is the `webhook-id`.
    Column("payload", JSONB, nullable=False),
    Column("state", Id, nullable=False),
    count("attempts", SmallInteger),
    #: The fence: grows with every claim.
    count("epoch"),
    Column("next_at", Time, nullable=False, server_default=func.now()),
    Column("lease_until", Time),
    Column("last_error", Text),
    created(),
    Column("owner", Id, nullable=False, server_default=text("''")),
    Column("batch_id", Id, nullable=False, server_default=text("''")),
    #: Of a `callback_url`; null where it is the endpoint's, as that stands when it is sent.
    Column("url", Text),
    #: Who is never sent more than two at once: an endpoint, or the host of a `callback_url`.
    Column("receiver", Id, nullable=False, server_default=text("''")),
    #: The HTTP status of the last answer.
    Column("status_code", SmallInteger),
    Column("ended_at", Time),
    one_of("state", DeliveryState),
    Index(
        "ix_webhook_deliveries_turn",
        "receiver",
        "next_at",
        "id",
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "ix_webhook_deliveries_leased",
        "receiver",
        postgresql_where=text("state = 'delivering'"),
    ),
    Index("ix_webhook_deliveries_owner_id", "owner", "id"),
    Index("ix_webhook_deliveries_endpoint_id", "endpoint_id", "id"),
    Index("ix_webhook_deliveries_batch_id", "batch_id", "id"),
    Index("ix_webhook_deliveries_created_at", "created_at"),
    postgresql_with={"fillfactor": "70"},
)

#: Those that did not answer, or asked to be left alone, until they answer again.
webhook_receivers = Table(
    "webhook_receivers",
    metadata,
    Column("receiver", Id, primary_key=True),
    #: In a row.
    count("failures", SmallInteger),
    Column("paused_until", Time, nullable=False),
)

#: How attempts ended, counted for the metrics: a few rows, however many deliveries there were.
webhook_outcomes = Table(
    "webhook_outcomes",
    metadata,
    Column("outcome", Id, primary_key=True),
    count("attempts", BigInteger),
)
