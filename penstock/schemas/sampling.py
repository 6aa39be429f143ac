"""How answers are drawn, what they have to be and what is told of them: the parameters that a
client may set, and their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from penstock.schemas.formats import ResponseFormat

MAX_STOPS = 4
MAX_STOP_CHARS = 256
MAX_ANSWERS = 16
MAX_TOP_LOGPROBS = 20
MAX_LOGPROBS = 100_000  # of all answers to one prompt; each is some 60 bytes when stored
MIN_CHOICES, MAX_CHOICES = 2, 256
MAX_CHOICE_CHARS = 256

Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Choice = Annotated[str, Field(min_length=1, max_length=MAX_CHOICE_CHARS, pattern=r"\S")]
Mode = Literal["generate", "score"]
#: Of a job, whose prompts need no answer.
JobMode = Literal["generate", "score", "count"]


class SamplingFields(BaseModel):
    """Fields of a request that say how its answer is made. `temperature` 0 is greedy.

    A field is checked against those above it, so that the error names the one that contradicts.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    mode: Mode = Field(
        default="generate",
        description="`score`: no text is drawn; the answer is the likeliest of `choices`, with a "
        "probability for each in `details`.",
    )
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
    presence_penalty: float = Field(
        default=0, ge=-2, le=2, description="Taken from a token that the answer has already."
    )
    frequency_penalty: float = Field(
        default=0, ge=-2, le=2, description="Taken from a token for each time the answer has it."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Same seed, same text, whatever the neighbours."
    )
    stop: list[Stop] = Field(
        default_factory=list, max_length=MAX_STOPS, description="Texts that end the answer."
    )
    n: int = Field(
        default=1,
        ge=1,
        le=MAX_ANSWERS,
        description="Answers to each prompt: the first is the response, all are in `details`.",
    )
    logprobs: bool = Field(
        default=False, description="The log-probability of each token, in `details`."
    )
    top_logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="With `logprobs`: so many of the likeliest tokens at each place, too.",
    )
    response_format: ResponseFormat | None = Field(
        default=None,
        description="What an answer has to be: text, a JSON object, a document of a JSON schema, "
        "or a match of a regular expression.",
    )
    choices: list[Choice] | None = Field(
        default=None,
        min_length=MIN_CHOICES,
        max_length=MAX_CHOICES,
        validate_default=True,
        description="The answer is one of these texts.",
    )
    length_normalized: bool = Field(
        default=False,
        description="In mode `score`: a choice's score is the mean log-likelihood of its tokens "
        "instead of their sum, and the probabilities follow from that.",
    )
    use_cache: bool | None = Field(
        default=None,
        description="May the answer to an equal prompt stand for this one? By default where "
        "nothing is left to chance: temperature 0, a seed, mode `score`. True: always.",
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if value is None:
            return []
        return [value] if isinstance(value, str) else value

    @field_validator("stop", "n", "logprobs", "response_format")
    @classmethod
    def _nothing_is_drawn_to_score(cls, value: object, info: ValidationInfo) -> object:
        unused = value == cls.model_fields[info.field_name or ""].get_default(
            call_default_factory=True
        )
        mode = info.data.get("mode", "generate")
        if mode != "generate" and not unused:
            raise ValueError(f"mode `{mode}` does not go with it, since no text is drawn")
        return value

    @field_validator("logprobs", "top_logprobs")
    @classmethod
    def _not_too_many(cls, value: int | None, info: ValidationInfo) -> int | None:
        if (not value and info.field_name == "logprobs") or value is None:
            return value
        if not info.data.get("logprobs", True):
            raise ValueError("it needs `logprobs`: true")
        at_each = 1 if info.field_name == "logprobs" else 1 + value
        if info.data.get("n", 1) * info.data.get("max_tokens", 1) * at_each > MAX_LOGPROBS:
            raise ValueError(
                f"with `n` and `max_tokens` it may come to more than {MAX_LOGPROBS:,} "
                "log-probabilities for a prompt"
            )
        return value

    @field_validator("choices")
    @classmethod
    def _distinct_and_alone(
        cls, choices: list[str] | None, info: ValidationInfo
    ) -> list[str] | None:
        if choices is None:
            if info.data.get("mode") == "score":
                raise ValueError("mode `score` needs them")
            return None
        if len(set(choices)) < len(choices):
            raise ValueError("they have to differ from each other")
        asked = info.data.get("response_format")
        if asked is not None and asked.type != "text":
            raise ValueError("give them or `response_format`, not both")
        return choices

    @field_validator("length_normalized")
    @classmethod
    def _of_scores(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("mode", "score") != "score":
            raise ValueError("it needs `mode`: `score`")
        return value
