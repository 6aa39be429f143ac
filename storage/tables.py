"""The queue's tables, as SQLAlchemy metadata: the shape that the migrations must arrive at. What
stands around the queue is in `service_tables.py`.

Knows no query. Ids are text in byte order; times are PostgreSQL's. Rows that change often leave
room on their page (fillfactor), and no column that changes often is in an index of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from storage.states import BatchStatus, Lane, RequestState, ShardState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Requests of one shard, the unit of claiming.
SHARD_SIZE = 64
#: Seconds of age that one step of priority counts for: even the lowest comes to its end.
AGING = 600

Id = Text(collation="C")
Time = DateTime(timezone=True)


def one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def count(name: str, kind: type[Integer] = Integer) -> Column[int]:
    return Column(name, kind, nullable=False, server_default=text("0"))


def created() -> Column[object]:
    return Column("created_at", Time, nullable=False, server_default=func.now())


batches = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False),
    Column("kind", Id, nullable=False),
    Column("model", Id, nullable=False),
    Column("lane", Id, nullable=False),
    Column("status", Id, nullable=False),
    #: Why the job ends early: `cancelled`, `expired`, or null. Its shards are not claimed then.
    Column("ending", Id),
    Column("priority", SmallInteger, nullable=False),
    Column("params", JSONB, nullable=False),
    #: System prompt of all prompts of the job.
    Column("system", Text),
    Column("metadata", JSONB, nullable=False),
    Column("idempotency_key", Id),
    Column("body_hash", Id),
    count("total"),
    count("completed"),
    count("failed"),
    count("prompt_tokens", BigInteger),
    count("completion_tokens", BigInteger),
    #: Of both: tokens of answers that were there already.
    count("saved_tokens", BigInteger),
    #: Of the prompts that can run, as they are stored.
    count("bytes", BigInteger),
    created(),
    Column("started_at", Time),
    Column("finished_at", Time),
    #: When it began to end: all done, cancelled, or out of time.
    Column("ending_at", Time),
    #: Seconds that unfinished prompts are given, from storing and from each retry.
    Column("expires_in", Double),
    Column("expires_at", Time),
    #: Not to be kept: nobody sees it any more, and its rows go in portions.
    Column("deleting", Boolean, nullable=False, server_default=text("false")),
    #: Where the job's end is told, beside the owner's endpoints.
    Column("callback_url", Text),
    UniqueConstraint("owner", "idempotency_key"),
    one_of("status", BatchStatus),
    one_of("lane", Lane),
    one_of("ending", ("cancelled", "expired")),
    CheckConstraint(
        "completed >= 0 AND failed >= 0 AND completed + failed <= total", name="counters"
    ),
    Index("ix_batches_owner_id", "owner", "id"),
    Index(
        "ix_batches_ending",
        "id",
        postgresql_where=text("status IN ('cancelling', 'finalizing')"),
    ),
    Index(
        "ix_batches_expires_at",
        "expires_at",
        postgresql_where=text("status IN ('queued', 'in_progress')"),
    ),
    Index(
        "ix_batches_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")
    ),
    postgresql_with={"fillfactor": "50"},
)

shards = Table(
    "shards",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("batch_id", Id, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("model", Id, nullable=False),
    Column("lane", Id, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    #: Whose turn it is claimed in: the job's owner. Empty in rows of the first two schemas.
    Column("owner", Id, nullable=False, server_default=text("''")),
    #: Its place in the owner's line: when it came, earlier by `AGING` for each step of priority.
    #: `infinity`: a turn that waits for an earlier one of its conversation (`turns.py`).
    Column("due_at", Time, nullable=False, server_default=func.now()),
    Column("state", Id, nullable=False),
    #: The fence: grows with every lease and with every lease that is taken away.
    count("epoch"),
    #: Holds one suspect prompt, which an engine runs by itself.
    Column("alone", Boolean, nullable=False, server_default=text("false")),
    #: Requests without an outcome.
    Column("remaining", SmallInteger, nullable=False),
    Column("slot", Id),
    Column("boot_id", Id),
    Column("lease_until", Time),
    created(),
    one_of("state", ShardState),
    CheckConstraint("(state = 'leased') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("remaining >= 0", name="remaining"),
    CheckConstraint("(state IN ('ready', 'leased')) = (remaining > 0)", name="open"),
    Index(
        "ix_shards_turn",
        "model",
        "lane",
        "owner",
        "due_at",
        text("priority DESC"),
        "id",
        postgresql_where=text("state = 'ready'"),
    ),
    # Without lease_until, so that a heartbeat touches no index: leased shards are few.
    Index("ix_shards_leased", "slot", "boot_id", "id", postgresql_where=text("state = 'leased'")),
    Index("ix_shards_batch_id", "batch_id"),
    postgresql_with={"fillfactor": "70"},
)

requests = Table(
    "requests",
    metadata,
    Column("batch_id", Id, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    # Deferred: intake copies the requests first and knows the shards' sizes after.
    Column(
        "shard_id",
        BigInteger,
        ForeignKey("shards.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("state", Id, nullable=False),
    count("attempts", SmallInteger),
    count("crashes", SmallInteger),
    count("crashes_alone", SmallInteger),
    #: A list of [role, content]; null where the prompt cannot be stored or run.
    Column("messages", JSONB),
    #: What this prompt asks for itself; null: what the job asks for all.
    Column("params", JSONB),
    #: The client's own name for it.
    Column("custom_id", Text),
    one_of("state", RequestState),
    Index("ix_requests_shard_id", "shard_id"),
    # Twice updated: admitted, then done. With this both updates stay on the page.
    postgresql_with={"fillfactor": "50"},
)

results = Table(
    "results",
    metadata,
    Column("batch_id", Id, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("text", Text),
    Column("finish_reason", Id),
    Column("error_code", Id),
    Column("error_message", Text),
    count("prompt_tokens"),
    count("completion_tokens"),
    created(),
    #: What there is beside the text, as a JSON object; null for most.
    Column("detail", JSONB),
    #: The answer to an equal prompt; null: computed for this one.
    Column("from_cache", Boolean),
    ForeignKeyConstraint(
        ["batch_id", "position"], ["requests.batch_id", "requests.position"], ondelete="CASCADE"
    ),
    CheckConstraint("(text IS NULL) = (error_code IS NOT NULL)", name="one_outcome"),
)

#: Which results of a job became visible together: one row for each commit that brought some, made
#: by a trigger on `results`. Numbers of one job grow in the order in which commits became visible.
arrivals = Table(
    "arrivals",
    metadata,
    Column("batch_id", Id, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("positions", ARRAY(Integer), nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("owner", Id, primary_key=True),
    Column("id", Id, primary_key=True),
    created(),
    #: When its last turn was said.
    Column("updated_at", Time, nullable=False, server_default=func.now()),
    Index("ix_conversations_updated_at", "owner", "updated_at", "id"),
)

#: One row per turn: what the user said. The answer is the result of the turn's batch; of a turn
#: that was imported there is no batch, and the answer is here.
messages = Table(
    "messages",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("owner", Id, nullable=False),
    Column("conversation_id", Id, nullable=False),
    # Deferred: a turn is opened before its batch is stored, in one transaction.
    Column(
        "batch_id",
        Id,
        ForeignKey("batches.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
    ),
    Column("content", Text, nullable=False),
    #: Grows from turn to turn of a conversation, and is their order.
    created(),
    #: Earlier turns that are sent along, at most. 0 in rows of the first schemas, whose prompts
    #: have them.
    count("history"),
    #: Its batch has not ended.
    Column("open", Boolean, nullable=False, server_default=text("false")),
    Column("answer", Text),
    Column("answered_at", Time),
    ForeignKeyConstraint(
        ["owner", "conversation_id"],
        ["conversations.owner", "conversations.id"],
        ondelete="CASCADE",
    ),
    Index("ix_messages_said", "owner", "conversation_id", "created_at", "id"),
    Index(
        "ix_messages_open",
        "owner",
        "conversation_id",
        "created_at",
        postgresql_where=text("open"),
    ),
    Index("ix_messages_batch_id", "batch_id"),
)

workers = Table(
    "workers",
    metadata,
    Column("slot", Id, primary_key=True),
    Column("boot_id", Id, nullable=False),
    Column("model", Id, nullable=False),
    Column("info", JSONB, nullable=False),
    Column("stats", JSONB, nullable=False),
    Column("started_at", Time, nullable=False, server_default=func.now()),
    Column("beat_at", Time, nullable=False, server_default=func.now()),
    #: The model that it was ordered to serve instead of its configured one, how often it began to
    #: load that in vain, and why it gave the last order up.
    Column("wanted", Id),
    count("load_tries"),
    Column("load_error", Text),
    postgresql_with={"fillfactor": "50"},
)
