"""What is found in an annotated table, whatever the task was, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from penstock.annotation.records import Kind, Record, Row, Type
from penstock.annotation.report.cells import text
from penstock.annotation.report.certainty import Certainty
from penstock.annotation.report.gather import Findings, gather
from penstock.annotation.report.layout import Layout, guessed, of_task
from penstock.annotation.task.task import Task, task_from
from penstock.errors import InvalidRequest

LABELS = ("yes", "no", "maybe")


@dataclass(frozen=True)
class Rows:
    """A source, and its one pass."""

    rows: Iterable[Mapping[str, object]]
    name: str = "the table"
    columns: Sequence[str] = ()
    checksum: str = ""

    def read(self) -> Rows:
        return self

    def __iter__(self) -> Iterator[Record]:
        for number, row in enumerate(self.rows):
            yield Record(number, dict(row), f"row {number + 1}")


def labels_task(**more: object) -> Task:
    return task_from(None, template="{{ text }}?", labels=LABELS, gold="truth", **more)


def found(task: Task, rows: Iterable[Mapping[str, object]]) -> Findings:
    return gather(Rows(rows), of_task(task))


def row(label: str = "", truth: str = "", **more: object) -> Row:
    return {"text": "t", "truth": truth, "label": label, "needs_review": "false", **more}


def test_accuracy_confusion_and_scores_against_gold() -> None:
    rows = [row("yes", "yes")] * 6 + [row("no", "yes")] * 2 + [row("no", "no")] * 4
    findings = found(labels_task(), [*rows, row("maybe"), row("yes", "")])

    accuracy = findings.gold.accuracy
    assert accuracy is not None
    assert accuracy.middle == pytest.approx(10 / 12)
    assert accuracy.low < 0.83 < accuracy.high
    confusion = findings.gold.confusion()
    assert confusion is not None
    assert confusion.row("yes")[:2] == [6, 2]
    assert confusion.row("no")[:2] == [0, 4]
    yes, no = findings.gold.scores()
    assert (yes.name, yes.gold, yes.answered) == ("yes", 8, 6)
    assert yes.precision is not None
    assert yes.precision.middle == 1
    assert no.precision is not None
    assert no.precision.middle == pytest.approx(4 / 6)
    assert findings.labels.top(2).counts == (("yes", 7), ("no", 6))
    assert findings.labels.top(2).others == 1


def test_rows_that_failed_and_rows_to_come_are_no_answers() -> None:
    failed = row("", "yes", error="too long", needs_review="true")
    findings = found(labels_task(), [row("yes", "yes"), failed, {"text": "t", "truth": "no"}])

    assert (findings.rows, findings.done, findings.failed, findings.open) == (3, 1, 1, 1)
    assert (findings.gold.rows, findings.review) == (1, 1)
    assert findings.reasons.top(5).counts == (("too long", 1),)


def test_rows_that_failed_alike_are_counted_together() -> None:
    errors = [
        "context_length_exceeded: The prompt has 91,926 tokens; the model's context is 1024.",
        "context_length_exceeded: The prompt has 513 tokens; the model's context is 1024.",
        "The answer '{\"n\": 0' cannot be read: it is no complete JSON.",
        "The answer '{\"n\": \n it''s' cannot be read: it is no complete JSON.",
    ]
    reasons = found(labels_task(), [row(error=each) for each in errors]).reasons.top(9)

    assert dict(reasons.counts) == {
        "context_length_exceeded: The prompt has … tokens; the model's context is ….": 2,
        "The answer … cannot be read: it is no complete JSON.": 2,
    }


def test_several_labels_are_counted_each_for_itself() -> None:
    rows = [row('["yes","no"]', "no, yes"), row('["yes"]', '["maybe"]'), row("[]", "[]")]
    findings = found(labels_task(several=True), rows)

    assert (findings.done, findings.gold.rows, findings.gold.right) == (3, 3, 2)
    assert findings.labels.top(3).counts[0] == ("yes", 2)
    assert findings.gold.confusion() is None
    by_name = {score.name: score for score in findings.gold.scores()}
    assert by_name["maybe"].recall is not None
    assert by_name["maybe"].recall.middle == 0


def test_fields_are_typed_also_in_a_text_table() -> None:
    schema = {
        "type": "object",
        "properties": {
            "year": {"type": "integer"},
            "open": {"type": "boolean"},
            "city": {"type": "string"},
        },
    }
    task = task_from(None, template="{{ text }}", fields=schema, gold="truth")
    rows = [
        {"truth": '{"year": 1999, "open": true}', "year": "1999", "open": "true", "city": "Bonn"},
        {"truth": '{"year": 2001}', "year": "2002", "open": "", "city": "Bonn"},
        {"year": "", "open": "", "city": "", "error": "no answer"},
    ]
    findings = found(task, rows)

    assert (findings.done, findings.failed) == (2, 1)
    assert (findings.gold.rows, findings.gold.right) == (2, 1)
    year, opened, city = (field.figures() for field in findings.fields)
    assert (year.filled, year.low, year.mean, year.high) == (2, 1999, 2000.5, 2002)
    assert year.right is not None
    assert (year.right.middle, opened.right and opened.right.middle, city.right) == (0.5, 1.0, None)
    assert opened.top is not None
    assert opened.top.counts == (("true", 1),)
    assert city.top is not None
    assert city.top.counts == (("Bonn", 2),)


def test_texts_are_compared_and_their_lengths_counted() -> None:
    task = task_from(None, template="{{ text }}", text=True, gold="truth")
    rows = [
        {"answer": " Rome", "truth": "Rome", "completion_tokens": "3"},
        {"answer": "Bern", "truth": "Rome", "completion_tokens": "700"},
    ]
    findings = found(task, rows)

    assert (findings.gold.rows, findings.gold.right) == (2, 1)
    assert sum(findings.lengths) == 2
    assert [place for place, count in enumerate(findings.lengths) if count] == [2, 10]


def test_what_review_buys_is_exact_at_its_thresholds() -> None:
    certainty = Certainty()
    for place in range(100):  # the twenty least certain are half wrong, the rest right
        certainty.add(0.3 if place < 20 else 0.9, place >= 20 or place % 2 == 0)

    none, some = certainty.review()
    assert (none.rows, none.rest and none.rest.middle) == (0, 0.9)
    assert (some.rows, some.share) == (20, 0.2)
    assert 0.3 < some.below < 0.91
    assert some.rest is not None
    assert (some.rest.middle, some.whole.middle) == (1.0, 1.0)


def test_probabilities_near_one_are_told_apart() -> None:
    certainty = Certainty()
    for probability, right in ((0.9999, False), (0.99999, True), (1.0, True)) * 10:
        certainty.add(probability, right)

    assert any(line.rest and line.rest.middle == 1 for line in certainty.review())


def test_voters_and_other_annotators_are_compared() -> None:
    task = labels_task(votes={"samples": 2, "columns": ["intern"]}, mode="decode", temperature=1.0)
    first, second = (member.name for member in task.members)
    rows = [
        row("yes", "yes", intern=intern, **{f"label_{first}": "yes", f"label_{second}": one})
        for intern, one in [("yes", "yes"), ("no", "yes"), ("", "no"), ("no", "no")]
    ]
    findings = found(task, rows)

    assert findings.votes.voters == (first, second, "intern")
    assert [(pair.rows, pair.same.middle) for pair in findings.votes.pairs()] == [
        (4, 0.5),
        (3, pytest.approx(1 / 3)),
        (3, pytest.approx(2 / 3)),
    ]
    assert {score.name: score.accuracy.middle for score in findings.votes.scores()} == {
        first: 1.0,
        second: 0.5,
        "intern": pytest.approx(1 / 3),
    }
    kappas = {score.name: score.kappa for score in findings.votes.scores()}
    by_second = kappas[second]
    assert by_second is not None
    assert by_second.middle == pytest.approx(0.0)
    alpha = findings.votes.alpha()
    assert alpha is not None
    assert alpha.middle < 0.3


def test_what_is_told_beside_the_columns_is_not_shown_as_one() -> None:
    task = task_from(None, template="{{ text }}: {{ labels }}", labels=LABELS, gold="truth")
    findings = found(task, [row("yes", "no", probability="0.7", text="A text")])

    assert [dict(each.cells) for each in findings.mistaken.examples()] == [{"text": "A text"}]


def test_sets_of_labels_are_compared_with_gold_whatever_their_order() -> None:
    task = task_from(None, template="{{ text }}", labels=["a", "b"], several=True, gold="truth")
    said = ['["a", "b"]', '["a"]', "[]", '["b"]']
    rows = [row(one, gold) for one, gold in zip(said, ["b, a", "a", "[]", "a"], strict=True)]
    kappa = found(task, rows).gold.kappa()

    assert kappa is not None
    assert kappa.middle == pytest.approx((3 / 4 - 4 / 16) / (1 - 4 / 16))


def test_the_hardest_rows_are_the_least_certain_and_the_surest_mistakes() -> None:
    draw = random.Random(5)
    rows = [
        row("yes", draw.choice(["yes", "no"]), probability=str(draw.random()), text=f"text {place}")
        for place in range(500)
    ]
    findings = found(labels_task(), rows)

    certain = sorted(float(str(each["probability"])) for each in rows)
    uncertain = [example.probability for example in findings.uncertain.examples()]
    assert uncertain == certain[: len(uncertain)]
    mistaken = findings.mistaken.examples()
    assert all(example.gold == "no" for example in mistaken)
    wrong = [float(str(each["probability"])) for each in rows if each["truth"] == "no"]
    assert mistaken[0].probability == max(wrong)
    assert mistaken[0].cells["text"].startswith("text ")


def test_memory_does_not_grow_with_the_rows() -> None:
    def rows(count: int) -> Iterator[Row]:
        for place in range(count):
            yield row(
                f"label {place}",
                f"gold {place}",
                text=f"{place} " * 200,
                error=f"reason {place}" if place % 3 == 0 else "",
                probability=(place % 997) / 997,
            )

    def used(count: int) -> int:
        roles = {name: name for name in ("probability", "needs_review", "error")}
        layout = Layout(Kind.LABELS, "label", roles=roles, gold="truth", shown=("text",))
        tracemalloc.start()
        try:
            findings = gather(Rows(rows(count)), layout)
            assert findings.rows == count
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert used(6_000) - used(2_000) < 200_000  # bytes; the texts of the others alone have 4 MB


def test_without_a_task_the_columns_say_what_they_are() -> None:
    columns = ["id", "text", "label", "probability", "label_b", "needs_review", "error", "truth"]
    layout = guessed(columns, "truth", [{"label": "yes"}])

    assert (layout.kind, layout.value, layout.several) == (Kind.LABELS, "label", False)
    assert layout.votes == {"b": "label_b"}
    assert layout.shown == ("id", "text")
    assert guessed(columns, None, [{"label": '["a"]'}, {"label": ""}]).several
    assert guessed(["q", "answer"], None, []).kind is Kind.TEXT


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["id", "text"], "no annotated table"), (["year", "needs_review"], "--task")],
)
def test_a_table_that_says_nothing_is_refused(columns: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        guessed(columns, None, [])


def test_a_gold_column_that_is_not_there_is_named() -> None:
    layout = Layout(Kind.FIELDS, fields={"year": Type.INTEGER}, gold="truth")

    with pytest.raises(InvalidRequest, match="'truth'"):
        layout.check(["year", "id"])
    with pytest.raises(InvalidRequest, match="'year'"):
        layout.check(["truth"])


def test_a_shown_cell_is_cut_and_can_do_no_harm() -> None:
    shown = text("\x1b[31mred\u202e " + "x" * 1_000_000)

    assert len(shown) < 500
    assert shown.endswith("…")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert text("\ud800") == "\N{REPLACEMENT CHARACTER}"
