"""The seam between who decides (`batching/`) and who computes (`models/`). No torch here.

A runner owns the key/value memory and the rows it was given and nothing else: it picks no row,
keeps no queue and knows no time. Calls come from one thread.

Two kinds of runner stand behind it. A packed one reads the whole of a plan: every step is one
forward of the tokens of all its rows. A padded one runs one micro-batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from penstock.errors import InvalidRequest


class FinishReason(StrEnum):
    """Why a row ended. The first two are results, the others are outcomes without one."""

    STOP = "stop"  #: an end-of-sequence token, a stop text, the end of a constraint, or scored
    LENGTH = "length"  #: max_tokens, or the model's context
    CANCELLED = "cancelled"
    ERROR = "error"


class Purpose(StrEnum):
    """What a row is for."""

    GENERATE = "generate"
    SCORE = "score"  #: log-likelihoods of its choices; nothing is sampled
    PREFIX = "prefix"  #: keys and values for others to share; ends with no result of its own


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer has to be. `value` is the JSON schema as text, the regular expression, or for
    `choices` a JSON list of strings. Hashable, so that what it compiles to is shared."""

    kind: Literal["choices", "json_schema", "regex"]
    value: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one row's tokens are chosen. `temperature` 0 is greedy; `top_k` 0 keeps all. `logprobs`
    None: none; else for each token its own and the `logprobs` likeliest. Penalties of presence and
    frequency are of the answer alone (OpenAI), `repetition_penalty` of the prompt too (CTRL)."""

    max_tokens: int = 200
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt, ready to run. `prompt` holds token ids, at least one; `choices` the token ids of
    each label to score, none of them empty. `stream`: its text is wanted as it comes, else all of
    it with the last step. `branch` numbers the answers to one prompt: each draws its own."""

    id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    purpose: Purpose = Purpose.GENERATE
    choices: tuple[tuple[int, ...], ...] = ()
    stream: bool = False
    branch: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """Positions of the key/value arena: one holds keys and values of one token, in every layer."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row's keys and values are. The first tokens of its prompt may be there already:
    those of `prefix`, which it shares and only reads, then those of `copy`, which are copied to the
    beginning of `own` before the step. `own` has room for all others and for the answer."""

    own: Region
    prefix: Region | None = None
    copy: Region | None = None

    @property
    def known(self) -> int:
        """Tokens of the prompt that need not be read."""
        return sum(region.length for region in (self.prefix, self.copy) if region is not None)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `tokens` tokens of a row's prompt."""

    id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step. `drop` are rows that were cancelled since the last one, and leave before it.

    Packed: `places` tells for each row of `admit` where it lives; `chunks` is what is read of
    prompts (a row whose prompt ends with its chunk samples its first token in this step, or is
    scored); every row whose prompt was read before decodes one token, or only those of `decode`
    when it is not None. A prefix is chunked no later than the rows that share it.

    Padded: the prefill of a new `micro_batch` when `admit` is not empty, else one decode step of a
    live one.
    """

    admit: tuple[Row, ...] = ()
    places: tuple[Place, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    drop: tuple[str, ...] = ()
    decode: frozenset[str] | None = None
    micro_batch: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer, its natural log-probability before the temperature, and the likeliest
    tokens in its place, best first."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RowStep:
    """What one step brought for one row. `text` is new text that is safe to show: no half
    character, no stop text. `finish` is set on the row's last step, and with it the rest: the
    tokens it sampled, their log-probabilities where asked for, the log-likelihood of each choice.
    With `error` the row never ran, for what it asks cannot be done, and `text` says why."""

    id: str
    text: str = ""
    finish: FinishReason | None = None
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step brought. `rows` are those that have text to show or that ended: all others have
    nothing to say; `started` those that sampled their first token or were scored; `sampled` counts
    tokens. `tokens_read` are the positions that the linear layers computed, pads included,
    `tokens_needed` those of them that are not pads; the same of keys read by decoding rows in
    `keys_read` and `keys_needed`. A runner that reads a step late says `pending`: there is more to
    come, of an empty plan too."""

    rows: tuple[RowStep, ...] = ()
    started: tuple[str, ...] = ()
    sampled: int = 0
    tokens_read: int = 0
    tokens_needed: int = 0
    keys_read: int = 0
    keys_needed: int = 0
    pending: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is loaded. Bytes and counts; `context` is the most tokens of a row, prompt included.

    `max_rows` (of bulk) and `kv_tokens` say what fits, 0: not known; `kv_tokens` is the size of a
    packed runner's arena in positions, `kv_bytes` what it takes in all. `step_tokens`: about how
    many tokens of a step the device likes best. `revision` differs where the weights do. `dtype`:
    what activations are computed in."""

    name: str
    parameters: int
    memory_bytes: int
    device: str
    quantization: str
    context: int
    runner: str  #: `packed`, `padded` or `fake`, which is packed too
    notes: tuple[str, ...] = field(default=())
    max_rows: int = 0
    kv_tokens: int = 0
    kv_bytes: int = 0
    step_tokens: int = 256
    revision: str = ""
    dtype: str = ""
    device_name: str = ""


class Codec(Protocol):
    """Text to tokens. Safe to call from several threads."""

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Token ids of (role, content) turns, with the model's template and the opening of the
        assistant's turn. Raises InvalidRequest."""
        ...

    def encode_chats(
        self, chats: Sequence[Sequence[tuple[str, str]]]
    ) -> Sequence[tuple[int, ...] | InvalidRequest]:
        """The same of many at once, in order; of one that has none, the reason."""
        ...

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt that is no chat."""
        ...

    def encode_answer(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as the assistant's turn begins with it: a label to score."""
        ...


class Runner(Protocol):
    """Computes steps. Raises `penstock.errors.OutOfMemory` when the device cannot hold one. After
    any error the caller forgets what ran."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def codec(self) -> Codec: ...

    def step(self, plan: StepPlan) -> StepOutput:
        """Run one step. Rows that finish leave the runner by themselves."""
        ...

    def forget(self, micro_batch: int) -> None:
        """Free a micro-batch, whatever state it is in; a packed runner frees every row (its
        regions are the caller's). Idempotent."""
        ...
