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
    kv_tokens: int | None = Field(default=None, description="Tokens that the K/V memory holds.")
    kv_bytes: int | None = None


class WorkerStats(BaseModel):
    """One live worker, as it last said of itself."""

    slot: str
    model: str
    heartbeat_age: float = Field(description="Seconds.")
    stats: dict[str, object]


class CacheStats(BaseModel):
    """Answers kept for repeated prompts."""

    size: int
    hits: int
    misses: int


class Stats(BaseModel):
    """The service in figures."""

    conversations: int
    cache: CacheStats
    queue_depth: int = Field(description="Prompts without an outcome, all lanes.")
    queue: list[LaneStats]
    model: ModelStats
    workers: list[WorkerStats]
