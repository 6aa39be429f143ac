"""Every setting, read from the environment (`PENSTOCK_…`, nested by `__`) or a `.env` file.

Only composition roots read this; all else gets plain values by constructor.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from penstock.keys import MIN_SECRET
from penstock.service_settings import (
    BlobSettings,
    CacheSettings,
    ConversationSettings,
    WebhookSettings,
)

Quantization = Literal["int4", "int8", "fp16", "bf16", "fp32"]
DEFAULT_MODEL = "assets/penstock-tiny"
FAKE_MODEL = "fake"


def _parts(value: object) -> object:
    """A comma-separated text as its parts."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class DatabaseSettings(BaseModel):
    """PostgreSQL 14 or later."""

    url: SecretStr | None = Field(
        default=None,
        description="`postgresql://user:password@host/name`; `penstock up` makes its own.",
    )
    pool_size: int = Field(default=10, ge=1, description="Connections kept by one process.")
    statement_timeout: float = Field(default=30, gt=0, description="Seconds for one statement.")
    connect_timeout: int = Field(default=5, ge=1, description="Seconds to open a connection.")


class BrokerSettings(BaseModel):
    """Redis 6.2 or later, or Valkey."""

    url: SecretStr | None = Field(
        default=None, description="`redis://…` or `redis+socket:///path`; `up` makes its own."
    )
    key_prefix: str = Field(default="penstock:", description="In front of every key in Redis.")


TemplateName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]


class ModelSettings(BaseModel):
    """Which model is served, and how it is loaded and batched."""

    name: str = Field(
        default=DEFAULT_MODEL,
        description="A local path, a hub name, or `fake` (no torch, for trying things out).",
    )
    served_name: str | None = Field(
        default=None, description="Name in the API; by default the name, or a path's last part."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    template_args: dict[TemplateName, str | bool | int | float] = Field(
        default_factory=dict,
        description="Names that the model's chat template looks at, as JSON: "
        '`{"enable_thinking": false}` for models that think first unless told otherwise.',
    )
    quantization: Quantization | None = Field(
        default=None, description="By default bf16 on a GPU that has it, fp32 on the CPU."
    )
    device: str | None = Field(
        default=None, description="`cuda:1`, `cpu`; by default the GPU with most free memory."
    )
    runner: Literal["auto", "packed", "padded"] = Field(
        default="auto",
        description="`packed`: no padding, rows join and leave at any step; `padded`: "
        "micro-batches, for every model; `auto`: packed where the model passes its probe.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Rows that run at once; by default what fits, at most 128 packed, 64 padded.",
    )
    step_tokens: int | None = Field(
        default=None,
        ge=16,
        le=65_536,
        description="Packed: tokens of one step, 512 by default; fewer let a chat wait for less.",
    )
    kv_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Packed: tokens whose keys and values are kept; by default what fits.",
    )
    kv_share: float | None = Field(
        default=None,
        gt=0,
        le=0.95,
        description="Packed: share of the free device memory for them, where `kv_tokens` is not "
        "given; by default 0.85 of a GPU's and 0.5 of the machine's.",
    )
    min_prefix: int = Field(
        default=32,
        ge=0,
        description="Packed: prompts of a job that begin with so many equal tokens share them; "
        "0: none do.",
    )
    max_batch_tokens: int = Field(
        default=16_384,
        ge=16,
        description="Padded: rows times the longest prompt of one micro-batch, in tokens.",
    )
    max_wait: float = Field(
        default=0.5,
        ge=0,
        description="Padded: seconds that a bulk prompt waits for a fuller micro-batch.",
    )
    express_rows: int = Field(default=8, ge=1, description="Rows kept for chats.")
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of torch; by default one per core."
    )
    fake_tokens_per_second: float = Field(
        default=0, ge=0, description="Speed of the fake model for one row; 0 is as fast as it goes."
    )
    fake_dangerous: bool = Field(
        default=False,
        description="The fake model's process dies of a prompt with `<<crash>>`, and runs out of "
        "memory by one with `<<memory>>` in company.",
    )

    choices: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Other models that a worker may be told to load instead, comma-separated: "
        "`name` as above, or `served_name=name`. Device, quantization and limits are the same.",
    )

    @field_validator("choices", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value)

    @property
    def models(self) -> dict[str, str]:
        """The configured model and the choices: what is loaded, by the name that clients see."""
        named = {}
        for choice in self.choices:
            served, _, name = choice.rpartition("=")
            other = ModelSettings(name=name, served_name=served or None)
            named[other.public_name] = name
        return {**named, self.public_name: self.name}

    def of(self, public_name: str) -> ModelSettings:
        """These settings for one of `models`."""
        if public_name == self.public_name:
            return self
        name = self.models[public_name]
        return self.model_copy(update={"name": name, "served_name": public_name, "revision": None})

    @property
    def public_name(self) -> str:
        """The name clients see."""
        if self.served_name:
            return self.served_name
        return Path(self.name).name if Path(self.name).exists() else self.name


class ApiSettings(BaseModel):
    """The HTTP side and its limits."""

    host: str = Field(default="127.0.0.1", description="Any other address needs keys.")
    port: int = Field(default=8000, ge=0, le=65_535, description="0 picks a free one.")
    keys: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="Accepted bearer keys, comma-separated: each of the owner `default`, and good "
        "for everything.",
    )
    max_body_bytes: int = Field(default=200_000_000, ge=1024, description="Bytes of one body.")
    max_prompts: int = Field(default=50_000, ge=1, description="Prompts of one job.")
    max_prompt_bytes: int = Field(
        default=512_000, ge=1, description="Bytes of one prompt; a longer one fails alone."
    )
    max_bytes_in_flight: int = Field(
        default=400_000_000, ge=1024, description="Bytes of all bodies being read at once."
    )
    max_waiting: int = Field(
        default=1_000, ge=1, description="Clients that wait for an answer at once."
    )
    chat_timeout: float = Field(default=120, gt=0, description="Seconds a chat is waited for.")
    max_history_turns: int = Field(
        default=10,
        ge=0,
        le=1_000,
        description="Earlier turns sent with a chat; fewer where the model's context is too short.",
    )
    key_secret: SecretStr | None = Field(
        default=None,
        description="What keys of `penstock keys` are made and checked with, 32 characters or "
        "more; `penstock up` makes its own. With another secret all keys have to be made anew.",
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Of one owner, where its key says nothing else."
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Of one owner's chats, where its key says nothing else; prompts count by "
        "their bytes, answers by `max_tokens`.",
    )

    @field_validator("keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value)

    @field_validator("key_secret")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if len(value.get_secret_value()) < MIN_SECRET:
            raise ValueError(f"it has to be {MIN_SECRET} characters or longer")
        return value


class QueueSettings(BaseModel):
    """How much may wait: beyond an owner's bound 429, beyond that of all 503. Chats count apart."""

    owner_prompts: int = Field(
        default=2_000_000, ge=1, description="Prompts of one owner's jobs without an outcome."
    )
    owner_bytes: int = Field(
        default=4_000_000_000, ge=1, description="Bytes of them, about: by the share that is open."
    )
    owner_jobs: int = Field(default=5_000, ge=1, description="Unfinished jobs of one owner.")
    owner_chats: int = Field(default=1_000, ge=1, description="Unanswered chats of one owner.")
    prompts: int = Field(
        default=5_000_000, ge=1, description="Prompts of all jobs without an outcome."
    )
    bytes: int = Field(default=10_000_000_000, ge=1, description="Bytes of them, about.")
    jobs: int = Field(
        default=10_000,
        ge=1,
        description="Unfinished jobs of all owners; each post counts through them.",
    )
    chats: int = Field(default=2_000, ge=1, description="Unanswered chats of all owners.")


class WorkerSettings(BaseModel):
    """One GPU worker and its leases. All in seconds."""

    slot: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-0",
        description="Stable name of this worker; a restart under it frees its old leases at once.",
    )
    lease: float = Field(default=60, gt=1, description="A claimed shard is lost after this.")
    heartbeat: float = Field(default=10, gt=0, description="Leases are extended this often.")
    self_fence: float = Field(
        default=45, gt=0, description="Work is dropped when no lease was extended for this long."
    )
    grace: float = Field(default=20, ge=0, description="To finish what runs after SIGTERM.")
    poll: float = Field(default=2, gt=0, description="Database poll, for when no message comes.")
    watchdog: float = Field(
        default=300, gt=0, description="A process whose engine makes no step for this long exits."
    )

    @model_validator(mode="after")
    def _in_order(self) -> WorkerSettings:
        if not self.heartbeat < self.self_fence < self.lease:
            raise ValueError("heartbeat has to be less than self_fence, and that less than lease")
        return self


class DispatcherSettings(BaseModel):
    """The clock of the queue. All in seconds."""

    interval: float = Field(default=1, gt=0, description="It looks at the state this often.")
    reap_interval: float = Field(default=5, gt=0, description="Leases that ran out are freed.")
    retention: float = Field(
        default=30 * 86_400,
        gt=0,
        description="Finished jobs are deleted after this: prompts, results, and chats' messages.",
    )


class FlowerSettings(BaseModel):
    """Flower, the view of the workers."""

    host: str = Field(default="127.0.0.1", description="Address it listens on.")
    port: int = Field(default=5555, ge=0, le=65_535, description="0 picks a free one.")
    basic_auth: SecretStr | None = Field(
        default=None, description="`user:password`; needed on any address but loopback."
    )


class LogSettings(BaseModel):
    """Logs go to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["console", "json"] = "console"


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="PENSTOCK_",
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Field(default=Path(".penstock"), description="Where `penstock up` keeps all.")
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    blobs: BlobSettings = Field(default_factory=BlobSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    dispatcher: DispatcherSettings = Field(default_factory=DispatcherSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    conversations: ConversationSettings = Field(default_factory=ConversationSettings)
    flower: FlowerSettings = Field(default_factory=FlowerSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @property
    def blob_folder(self) -> Path:
        """Where the content of files is kept."""
        return self.blobs.path or self.data_dir / "blobs"
