"""What changed between two annotations, and whether gold got better."""

from __future__ import annotations

import math

import pytest

from penstock.annotation.rounds.annotated import annotated
from penstock.annotation.rounds.diff import FAILED, difference
from penstock.annotation.rounds.mcnemar import exact_p
from penstock.annotation.rounds.rows import RowId, fingerprint
from penstock.annotation.task.task import Task
from penstock.errors import InvalidRequest
from tests.unit.annotation.rounds.conftest import ANSWERS, ROWS, Annotate

BETTER = ({"label": "good"}, {"label": "bad"}, {"label": "bad"}, {"label": "bad"})


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        # R: binom.test(1, 10)$p.value and binom.test(16, 36)$p.value
        (9, 1, 0.021484375),
        (16, 20, 0.6177),
        (1, 9, 0.021484375),
    ],
)
def test_mcnemars_p_is_that_of_the_exact_binomial(gained: int, lost: int, p: float) -> None:
    assert math.isclose(exact_p(gained, lost), p, rel_tol=1e-3)


def test_mcnemars_p_is_finite_for_very_many_rows() -> None:
    assert 0.0 <= exact_p(6_000, 4_000) < 1e-80
    assert exact_p(50_000, 50_000) == 1.0


def test_changes_are_counted_by_kind_and_judged_by_gold(annotate: Annotate) -> None:
    a, b = annotated(annotate("a.csv")), annotated(annotate("b.jsonl", answers=BETTER))
    found = difference(a, b, None, 5)
    assert (found.rows, found.changed) == (4, 2)
    assert found.moves == {("good", "bad"): 1, (FAILED, "bad"): 1}
    assert (found.gold.rows, found.gold.before, found.gold.after) == (3, 1, 3)
    assert (found.gold.gained, found.gold.lost, found.gold.p) == (2, 0, 0.5)
    assert [(change.before, change.gold) for change in found.examples] == [
        ("good", "bad"),
        (FAILED, "bad"),
    ]


def test_fields_are_counted_by_the_one_that_changed(annotate: Annotate) -> None:
    schema = {
        "type": "object",
        "properties": {"who": {"type": "string"}, "year": {"type": "integer"}},
    }
    task = Task(template="{{ text }}", fields=schema, model="tiny")
    rows = ROWS[:2]
    one = [{"who": "Ada", "year": 1815}, {"who": "Bob", "year": 2}]
    other = [{"who": "Ada", "year": 1816}, {"who": "Bob", "year": 2.0}]
    a = annotated(annotate("a.csv", rows=rows, answers=one, task=task))
    b = annotated(annotate("b.jsonl", rows=rows, answers=other, task=task))
    found = difference(a, b, None, 0)
    assert (found.changed, dict(found.columns)) == (1, {"year": 1})


def test_tables_of_other_rows_or_kinds_are_refused(annotate: Annotate) -> None:
    a = annotated(annotate("a.csv"))
    moved = annotated(annotate("moved.csv", rows=(ROWS[1], ROWS[0], *ROWS[2:])))
    with pytest.raises(InvalidRequest, match="are not the same row"):
        difference(a, moved, None, 0)
    short = annotated(annotate("short.csv", rows=ROWS[:2], answers=ANSWERS[:2]))
    with pytest.raises(InvalidRequest, match="ends before line 5"):
        difference(a, short, None, 0)
    text = Task(template="{{ text }}", text=True, model="tiny")
    with pytest.raises(InvalidRequest, match="answers of different kinds"):
        difference(a, annotated(annotate("text.csv", answers=[{}] * 4, task=text)), None, 0)
    with pytest.raises(InvalidRequest, match="has a column 'wisdom'"):
        difference(a, a, "wisdom", 0)


def test_a_row_is_the_same_in_every_format_and_another_in_any_cell() -> None:
    row = {"a": "1", "b": "", "c": "ü"}
    assert fingerprint(row, None) == fingerprint({"c": "ü", "a": 1, "b": None}, ("a", "b", "c"))
    assert fingerprint(row, None) != fingerprint({**row, "b": "x"}, None)
    assert fingerprint({"a": "x"}, None) != fingerprint({"b": "x"}, None)
    told = RowId(7, fingerprint(row, None))
    assert RowId.parse(str(told)) == told
