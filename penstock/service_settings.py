"""Settings of what stands around the queue: files, answers kept, webhooks, conversations."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode


class BlobSettings(BaseModel):
    """Uploaded files."""

    path: Path | None = Field(
        default=None,
        description="Folder of their content, which all API processes share; by default `blobs` "
        "in the data directory.",
    )
    s3_bucket: str | None = Field(
        default=None,
        min_length=1,
        description="Keeps them in this bucket instead (extra `s3`); its credentials come from "
        "where boto3 looks for them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, "
        "a role.",
    )
    s3_prefix: str = Field(default="", description="Begins the names of all objects in the bucket.")
    s3_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/@]+",
        description="URL of an S3-compatible store; by default Amazon's own.",
    )
    s3_region: str | None = Field(default=None, description="Region of the bucket.")
    max_file_bytes: int = Field(default=200_000_000, ge=1024, description="Bytes of one file.")
    lifetime: float = Field(
        default=30 * 86_400,
        gt=0,
        description="Seconds that a file is kept where its upload does not say.",
    )
    owner_files: int = Field(default=10_000, ge=1, description="Uploads that one owner may keep.")
    owner_bytes: int = Field(default=50_000_000_000, ge=1024, description="Bytes of them.")


class CacheSettings(BaseModel):
    """Answers to equal prompts, and what clients keep under keys of their own."""

    enabled: bool = Field(
        default=True,
        description="Equal prompts with nothing left to chance are computed once.",
    )
    ttl: float = Field(default=86_400, gt=0, description="Seconds that an answer is reused.")
    entries: int = Field(
        default=1_000_000, ge=1, description="Answers that can be found again, at most about."
    )
    shared: bool = Field(
        default=False,
        description="Answers are reused across owners, who may so learn what others have asked.",
    )
    max_value_bytes: int = Field(
        default=65_536, ge=1, le=10_000_000, description="Bytes of a client's value, as JSON."
    )
    max_ttl: int = Field(
        default=30 * 86_400, ge=1, description="Seconds that a client's value is kept, at most."
    )
    owner_keys: int = Field(default=10_000, ge=1, description="Keys of one owner.")
    owner_bytes: int = Field(
        default=64_000_000, ge=1, description="Bytes of one owner's keys and values together."
    )


class WebhookSettings(BaseModel):
    """What is sent to receivers of webhooks, and where these may be. Times in seconds."""

    allowed_networks: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Addresses that are sent to although they are not public, comma-separated: "
        "`127.0.0.0/8,10.1.0.0/16`.",
    )
    timeout: float = Field(default=10, gt=0, le=20, description="For all of one attempt.")
    concurrency: int = Field(
        default=64,
        ge=2,
        le=256,
        description="Attempts of a process at once: two for a receiver, half of all for an owner.",
    )
    retention: float = Field(
        default=30 * 86_400, ge=4 * 86_400, description="Deliveries are deleted after this."
    )

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list):
            return [str(ip_network(part)) for part in value]
        return value


class ConversationSettings(BaseModel):
    """How long conversations are kept, and where they are exported to. Times in seconds."""

    ttl: float | None = Field(
        default=None,
        gt=0,
        description="A conversation is deleted so long after its last turn; by default, and at "
        "the latest, with its jobs (`PENSTOCK_DISPATCHER__RETENTION`).",
    )
    owner_ttl: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description='The same for single owners, as JSON: `{"owner": 3600}`.',
    )
    export_dir: Path | None = Field(
        default=None, description="The dispatcher exports all conversations into this folder."
    )
    export_interval: float = Field(default=86_400, gt=0, description="It does so this often.")
    export_keep: int = Field(default=7, ge=1, description="Exports that are kept, the newest.")
