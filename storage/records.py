"""What goes into storage and what comes out: plain frozen records, one per concept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from storage.states import BatchStatus, Lane

#: Messages of a prompt as (role, content).
Messages = tuple[tuple[str, str], ...]
#: The role of the one message of a prompt that is no chat: a text to go on with.
RAW: Final = "prompt"
#: JSON scalars and lists of sampling parameters, as the schema wrote them.
Params = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A job to store. `kind` is `batch` or `chat`."""

    id: str
    owner: str
    kind: str
    model: str
    lane: Lane
    params: Params
    system: str | None = None
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_in: float | None = None  #: seconds
    idempotency_key: str | None = None
    body_hash: str | None = None
    callback_url: str | None = None  #: told of the job's end; checked by the caller


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """One prompt in input order: its messages, or the reason why it cannot run."""

    messages: Messages | None
    error_code: str | None = None
    error_message: str | None = None
    params: Params | None = None  #: None: those of the job
    custom_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A job as it stands. Times are PostgreSQL's, with a time zone."""

    id: str
    owner: str
    kind: str
    model: str
    lane: Lane
    status: BatchStatus
    priority: int
    total: int
    completed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    metadata: Mapping[str, str]
    body_hash: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    expires_at: dt.datetime | None
    now: dt.datetime  #: PostgreSQL's clock when this was read
    detailed: bool  #: its results have more than their text
    saved_tokens: int = 0  #: of those above: of answers that were there already
    streamed: bool = False  #: its text is published as it comes


@dataclass(frozen=True, slots=True)
class ClaimedRequest:
    """A prompt of a claimed shard that has no outcome yet."""

    position: int
    messages: Messages
    params: Params | None = None  #: one object for all of a claim that are equal; None: the job's
    history: Messages = ()  #: earlier turns of its conversation, oldest first
    omitted: int = 0  #: turns before those
    repeated: bool = False  #: an earlier lease ran out while it ran


@dataclass(frozen=True, slots=True)
class ClaimedShard:
    """A lease: every later write names `id` and `epoch`."""

    id: int
    epoch: int
    batch_id: str
    lane: Lane
    alone: bool  #: holds a suspect prompt: the engine runs nothing else meanwhile
    owner: str  #: whose turn this was
    params: Params
    system: str | None
    requests: tuple[ClaimedRequest, ...]
    seconds_left: float | None = None  #: until the job expires, when it was claimed


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one prompt ended: `text` with a finish reason, or an error that says why."""

    position: int
    text: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    error_code: str | None = None
    error_message: str | None = None
    detail: str | None = None  #: what there is beside the text, as a JSON object
    from_cache: bool = False  #: the answer to an equal prompt
    digest: bytes | None = None  #: under which equal prompts may find it
    counted: bool = False  #: its tokens were asked for and no answer, so it was never admitted


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    """What a commit did. `held` False: the shard is lost, and nothing was written."""

    held: bool
    stored: int  #: new outcomes; fewer than sent when some were there already
    shard_done: bool
    batch_done: bool  #: every prompt of the job now has an outcome


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One stored outcome."""

    position: int
    text: str | None
    finish_reason: str | None
    error_code: str | None
    error_message: str | None
    prompt_tokens: int
    completion_tokens: int
    from_cache: bool = False  #: the answer to an equal prompt


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One GPU worker, as it last said of itself."""

    slot: str
    boot_id: str
    model: str
    info: Mapping[str, object]
    stats: Mapping[str, object]
    age: float  #: seconds since its last heartbeat, by PostgreSQL's clock


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """The open work of one lane of one model."""

    model: str
    lane: Lane
    ready_shards: int
    leased_shards: int
    open_requests: int
    oldest_seconds: float  #: age of the oldest ready shard; 0 when there is none


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key to store: of the key itself only its digest. No rates: those of the settings."""

    id: str
    owner: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    expires_in: float | None = None  #: seconds
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. It ends when it expires or is revoked, whichever comes first."""

    id: str
    owner: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None  #: may lie ahead, after a rotation
    seconds_left: float | None  #: by PostgreSQL's clock; None: it has no end
