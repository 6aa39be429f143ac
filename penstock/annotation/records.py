"""What the rooms of an annotation hand each other. Knows no file, no service and no statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from penstock.client import Answer

#: One row of a table by column.
Row = dict[str, object]
#: What `Client.submit` takes as one prompt: a text, or the messages of a conversation.
Prompt = str | list[dict[str, str]]


class Kind(StrEnum):
    """What a task asks for."""

    LABELS = "labels"
    FIELDS = "fields"
    TEXT = "text"


class Type(StrEnum):
    """What the cells of an added column are; every one may be empty."""

    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    TRUTH = "truth"
    JSON = "json"  #: a list or an object: typed where the format can, else its JSON


@dataclass(frozen=True, slots=True)
class Column:
    """A column that an annotation adds. `schema`: the JSON schema of its cells, of those with the
    type JSON that have one; formats with types of their own follow it."""

    name: str
    type: Type
    schema: Mapping[str, object] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a source. `number` counts from 0; `place` is where a human finds it (`line 7`);
    `raw` is the source's own, with which a sink writes the row's cells exactly as they were."""

    number: int
    row: Row
    place: str
    raw: object = None


class Pass(Protocol):
    """One reading of a source, from its first row to its last. `columns` are known before the
    first row where the format has them there, at the end in any case; `checksum` at the end."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def checksum(self) -> str:
        """SHA-256 of what was read, hexadecimal."""

    def __iter__(self) -> Iterator[Record]: ...


class Source(Protocol):
    """A table that can be read again and again, in constant memory."""

    @property
    def name(self) -> str:
        """How messages call it: a path, or `the table`."""

    def read(self) -> Pass: ...


class Sink(Protocol):
    """An output table. A context manager: complete when the block ends well, else not there."""

    def __enter__(self) -> Sink: ...
    def __exit__(self, *error: object) -> None: ...
    def write(self, record: Record, added: Mapping[str, object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What one voter said of one row: a value or an error.

    `value` is a label, a list of labels, the fields by name, or a text. `scores` are natural
    log-likelihoods and `probabilities` what follows from them: of all labels, summing to 1 (one
    of), or each for itself (several of). Both are None where nothing was scored.
    """

    value: object | None
    error: str | None = None
    scores: Mapping[str, float] | None = None
    probabilities: Mapping[str, float] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: bool = False  #: computed for an equal prompt, not for this one


class Questions(Protocol):
    """What one voter is asked about a row, and how its answers are read."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns that it needs."""

    @property
    def per_row(self) -> int:
        """Prompts of one row."""

    @property
    def body(self) -> Mapping[str, object]:
        """The fields of the job, as `Client.submit` takes them."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that is asked; another one is another question."""

    def ask(self, row: Row) -> Sequence[Prompt]:
        """`per_row` prompts. Raises InvalidRequest for a row that cannot be asked about."""

    def read(self, answers: Sequence[Answer]) -> Reading:
        """`per_row` answers to the prompts of one row, in their order."""


@dataclass(frozen=True, slots=True)
class Voter:
    """Who is asked: a prompt, a sample, a model. Or, with `column`, a column of the table that
    holds another annotator's labels; then there are no questions."""

    name: str
    questions: Questions | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is written of a row, all voters together.

    `probability`, `entropy` (nats) and `margin` (best minus second) belong to `value`, calibrated
    where a calibration was fitted. `agreement`: share of the voters that said `value`.
    """

    value: object | None
    error: str | None = None
    probability: float | None = None
    entropy: float | None = None
    margin: float | None = None
    probabilities: Mapping[str, float] | None = None
    agreement: float | None = None
    needs_review: bool = False
    votes: Sequence[Reading] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Live:
    """How far a run is. `seconds`: since it was first posted, also by an earlier process.
    `judged`: rows whose answers were read, of which `failed` and `review` are. `accuracy`: on the
    `gold` rows among them, 95 % (Wilson)."""

    total: int
    done: int
    judged: int = 0
    failed: int = 0
    review: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    gold: int = 0
    right: int = 0
    accuracy: Interval | None = None
    seconds: float = 0.0


class Watcher(Protocol):
    """Is told what happens. Called on the thread of the annotation."""

    def note(self, sentence: str) -> None:
        """Something that the user should know."""

    def reading(self, rows: int) -> None:
        """So many rows were looked through."""

    def scanned(self, rows: int) -> None:
        """The table is sound and has so many rows to annotate."""

    def sending(self, rows: int) -> None:
        """So many rows are stored by the service; nothing of them is lost any more."""

    def progressed(self, live: Live) -> None:
        """A look at the run."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the run cost, from the service's own counters; None where it does not tell.

    Seconds of the engine at work, bytes, joules; shares from 0 to 1.
    """

    seconds: float
    rows: int
    prompt_tokens: int
    completion_tokens: int
    reused_rows: int = 0
    reused_tokens: int = 0
    engine_seconds: float | None = None
    padded_share: float | None = None
    prefix_tokens: int | None = None  #: read once for many rows instead of for each
    peak_memory: int | None = None
    energy: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a run."""

    rows: int
    failed: int
    review: int
    receipt: Receipt
    jobs: Sequence[str]  #: request ids
    problem: str | None = None  #: one sentence, where not all jobs completed
    history: Sequence[tuple[float, int]] = field(default=())  #: seconds, rows done
    accuracy: Interval | None = None


#: Is called now and then with a number of rows.
Count = Callable[[int], None]
