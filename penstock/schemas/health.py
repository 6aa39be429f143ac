"""`/health`, `/readyz` and `/stats`: answer bodies."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Health(BaseModel):
    """Can this service generate at this moment?"""

    status: str = Field(description="`ok`, or `degraded` while no worker is alive.")
    model: str
    model_loaded: bool
    gpu_available: bool
    cache_size: int
    active_conversations: int = Field(
        default=0, description="Of all owners, with a turn in the last hour."
    )
    workers: int
    version: str


class Readiness(BaseModel):
    """`checks` maps database, broker and worker to `ok` or to what is wrong."""

    status: str
    checks: dict[str, str]


class LaneStats(BaseModel):
    """Open work of one lane of one model."""

    model: str
    lane: str
    ready_shards: int
    leased_shards: int
    open_requests: int
    oldest_seconds: float


class ModelStats(BaseModel):
    """What the newest live worker has loaded. `memory_footprint` is in bytes."""

    name: str
    loaded: bool
    parameters: int | None = None
    memory_footprint: int | None = None
    device: str | None = None
    quantization: str | None = None
    context: int | None = None
    runner: str | None = None
    notes: list[str] = Field(default_factory=list, description="Why it runs as it does.")
    max_rows: int | None = Field(default=None, description="Rows of jobs that run at once.")
    express_rows: int | None = Field(default=None, description="Rows kept for chats beside them.")
    step_tokens: int | None = None
    min_prefix: int | None = Field(
        default=None,
        description="Tokens that prompts of a job have to begin with alike to share them; 0: none "
        "do.",
    )
    kv_tokens: int | None = Field(default=None, description="Tokens that the K/V memory holds.")
    kv_bytes: int | None = None
    revision: str | None = Field(
        default=None, description="The commit of a hub model; of a folder, a digest of its files."
    )
    dtype: str | None = Field(default=None, description="What activations are computed in.")
    device_name: str | None = None
    versions: dict[str, str] = Field(
        default_factory=dict, description="Of Python and the libraries that compute."
    )
    weights: dict[str, str] | None = Field(
        default=None,
        description="SHA-256 by file. They are taken beside the work, so not at once there.",
    )


class WorkerStats(BaseModel):
    """One live worker, as it last said of itself.

    Since its start, which `boot` names, it counts `engine_seconds`, `tokens_in`, `tokens_out`,
    `tokens_read` and of them `tokens_needed`, `prefix_tokens` (of prompts, not read again),
    `saved_rows` and `saved_tokens` (of answers to equal prompts), and `energy` in joules where the
    device tells; `peak_memory` is in bytes.
    """

    slot: str
    model: str
    heartbeat_age: float = Field(description="Seconds.")
    stats: dict[str, object]


class CacheStats(BaseModel):
    """Answers kept for repeated prompts; counts are of the workers that live, since their start."""

    size: int = Field(description="Answers that can be found again; of many thousands, about.")
    hits: int = Field(description="Prompts answered without computing.")
    misses: int = Field(description="Prompts that might have been.")
    saved_tokens: int = Field(default=0, description="Tokens in and out of the hits.")


class Stats(BaseModel):
    """The service in figures."""

    conversations: int = Field(description="Stored, of the owner who asks.")
    active_conversations: int = Field(
        default=0, description="Of all owners, with a turn in the last hour."
    )
    cache: CacheStats
    queue_depth: int = Field(description="Prompts without an outcome, all lanes.")
    queue: list[LaneStats]
    model: ModelStats
    workers: list[WorkerStats]
