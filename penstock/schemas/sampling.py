"""How tokens are chosen: the parameters that a client may set, and their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_STOPS = 4
MAX_STOP_CHARS = 256

Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class SamplingFields(BaseModel):
    """Fields of a request that say how its answer is sampled. `temperature` 0 is greedy."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    max_tokens: int = Field(default=200, ge=1, le=131_072, description="Most new tokens.")
    temperature: float = Field(default=0.7, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(default=0.95, gt=0, le=1, description="Nucleus: kept probability mass.")
    top_k: int = Field(
        default=0, ge=0, le=1_000_000, description="Most likely tokens kept; 0: all."
    )
    min_p: float = Field(
        default=0, ge=0, le=1, description="Floor relative to the likeliest token."
    )
    repetition_penalty: float = Field(default=1, gt=0, le=10, description="1 changes nothing.")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Same seed, same text, whatever the neighbours."
    )
    stop: list[Stop] = Field(
        default_factory=list, max_length=MAX_STOPS, description="Texts that end the answer."
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if value is None:
            return []
        return [value] if isinstance(value, str) else value
