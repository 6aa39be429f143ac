"""A run repeated, and another round, against a small service over real HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.annotation.rounds.annotated import annotated
from penstock.annotation.rounds.manifest import checksum, load, manifest_of, manifest_path, write
from penstock.annotation.rounds.reproduce import Agreement, Reproduction, agreement
from penstock.annotation.rounds.rerun import Rerun
from penstock.annotation.run.annotation import Options
from penstock.annotation.table.source import source_of
from penstock.annotation.task.expression import Expression
from penstock.annotation.task.task import task_from
from penstock.client import Client
from penstock.errors import InvalidRequest
from tests.unit.annotation.rounds.conftest import (
    ANSWERS,
    LABELS,
    ROWS,
    TABLE,
    Annotate,
    Heard,
    ModelService,
    cells,
)


def reproduced(out: Path, client: Client, name: str = "again.csv") -> tuple[Agreement, Heard]:
    heard = Heard()
    first = annotated(out)
    plan = Reproduction(first, first.input_path, out.with_name(name))
    return plan.run(client, heard)[1], heard


def rerun(out: Path, where: str, name: str, **task: object) -> Rerun:
    before = annotated(out)
    asked = task_from(before.task, **task)
    target = out.with_name(name)
    return Rerun(before, Expression.parse(where), where, asked, target, Options())


def test_a_run_that_is_repeated_agrees_in_every_row_and_is_computed_anew(
    out: Path, client: Client, service: ModelService
) -> None:
    before = list(service.jobs)
    found, heard = reproduced(out, client)
    assert (found.rows, found.agree, found.close, found.tokens) == (4, 4, 4, 4)
    assert found.places == []
    assert heard.notes == []
    again = [job for id, job in service.jobs.items() if id not in before]
    assert [job.fields["use_cache"] for job in again] == [False]


def test_rows_that_got_another_answer_are_counted_and_placed(
    out: Path, client: Client, service: ModelService
) -> None:
    service.answer = lambda message: "other" if "three" in str(message) else "echo: Say one"
    found, _ = reproduced(out, client)
    assert (found.rows, found.agree) == (4, 1)
    assert found.places == ["line 3", "line 4", "line 5"]


def test_numbers_that_differ_by_their_last_bits_are_the_same_and_tokens_count_apart(
    annotate: Annotate,
) -> None:
    def made(name: str, changed: float, tokens: int) -> Path:
        cells = [{**ANSWERS[0], "prompt_tokens": 7}, {**ANSWERS[1], "prompt_tokens": 7}]
        shares = {"good": 0.4 + changed, "bad": 0.6 - changed}
        cells[1] |= {"probability": 0.4 + changed, "probabilities": shares, "prompt_tokens": tokens}
        task = LABELS.model_copy(update={"all_probabilities": True})
        return annotate(name, ROWS[:2], cells, task)

    first = annotated(made("out.csv", 0.0, 7))
    nearly = agreement(first, source_of(made("nearly.csv", 3e-7, 9)))
    assert (nearly.agree, nearly.close, nearly.tokens) == (2, 2, 1)
    assert nearly.farthest == pytest.approx(3e-7)
    far = agreement(first, source_of(made("far.csv", 1e-3, 7)))
    assert (far.agree, far.close, far.tokens) == (2, 1, 2)


def test_another_table_and_another_model_are_refused_before_anything_runs(
    out: Path, client: Client, service: ModelService
) -> None:
    jobs = len(service.jobs)
    table = out.with_name("in.csv")
    table.write_text(TABLE + "5,five,\n")
    with pytest.raises(InvalidRequest, match=r"in\.csv is not the table that was annotated"):
        reproduced(out, client)
    table.unlink()
    with pytest.raises(InvalidRequest, match=r"in\.csv, .*is not there; say by --table"):
        reproduced(out, client)
    table.write_text(TABLE)
    service.told["name"] = "other"
    with pytest.raises(InvalidRequest, match="does not serve tiny"):
        reproduced(out, client)
    assert len(service.jobs) == jobs


def test_another_round_asks_the_rows_that_match_and_keeps_the_rest(
    out: Path, client: Client, service: ModelService
) -> None:
    before, jobs = out.read_bytes(), len(service.jobs)
    plan = rerun(out, "needs_review and error != ''", "out2.csv", template="Tell me {{ id }}")
    summary = plan.run(client, Heard())
    target = out.with_name("out2.csv")
    asked = [message for job in list(service.jobs.values())[jobs:] for message in job.messages]
    assert asked == ["Tell me 2", "Tell me 4"]
    assert summary.rows == 2
    first, last = "echo: Say one", "echo: Say three"
    assert cells(target, "answer") == [first, "echo: Tell me 2", last, "echo: Tell me 4"]
    assert cells(target, "round") == ["1", "2", "1", "2"]
    assert cells(target, "text") == ["one", "fail", "three", "fail"]
    assert set(cells(target, "error")) == {""}
    assert out.read_bytes() == before


def test_a_round_names_the_one_before_and_counts_the_whole_table(out: Path, client: Client) -> None:
    rerun(out, "error != ''", "out2.csv", template="Tell me {{ id }}").run(client, Heard())
    told = manifest_of(out.with_name("out2.csv"))
    assert told is not None
    assert told.parent is not None
    assert (told.round, told.parent.name, told.parent.where) == (2, "out.csv", "error != ''")
    assert told.parent.sha256 == checksum(manifest_path(out))
    assert (told.source.name, told.source.rows) == ("in.csv", 4)
    counts = told.counts
    assert (counts.rows, counts.failed, counts.gold, counts.right) == (4, 0, 3, 1)


def test_a_round_can_be_written_in_another_format(out: Path, client: Client) -> None:
    rerun(out, "error != ''", "out2.parquet", template="Tell me {{ id }}").run(client, Heard())
    target = out.with_name("out2.parquet")
    assert cells(target, "round") == [1, 2, 1, 2]
    assert cells(target, "needs_review") == [False] * 4
    assert [cells(target, "answer")[row] for row in (0, 1)] == ["echo: Say one", "echo: Tell me 2"]


def test_a_third_round_goes_on_from_the_second(out: Path, client: Client) -> None:
    rerun(out, "error != ''", "out2.csv", template="Tell me {{ id }}").run(client, Heard())
    second = out.with_name("out2.csv")
    rerun(second, "id == 3", "out3.jsonl", template="Now {{ id }}").run(client, Heard())
    third = out.with_name("out3.jsonl")
    assert cells(third, "round") == [1, 2, 3, 2]
    assert cells(third, "answer")[2] == "echo: Now 3"


def test_rounds_of_the_same_table_by_other_filters_do_not_meet(out: Path, client: Client) -> None:
    for row in ("1", "3"):
        name = f"round{row}.csv"
        rerun(out, f"id == {row}", name, template="Now {{ id }}").run(client, Heard())
        answers = cells(out.with_name(name), "answer")
        assert answers[int(row) - 1] == f"echo: Now {row}"


@pytest.mark.parametrize(
    ("where", "name", "reason"),
    [
        ("id > 9", "new.csv", "No row of .* matches --where"),
        ("wisdom", "new.csv", "has no column 'wisdom'"),
        ("id == 1", "out.csv", "exists already, and nothing is overwritten"),
    ],
)
def test_a_round_of_nothing_or_over_another_is_refused(
    out: Path, where: str, name: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        rerun(out, where, name).check()


def test_a_later_round_is_not_reproduced_as_if_it_were_one_run(out: Path, client: Client) -> None:
    rerun(out, "error != ''", "out2.csv", template="Tell me {{ id }}").run(client, Heard())
    with pytest.raises(InvalidRequest, match=r"is a later round.*Reproduce out\.csv"):
        reproduced(out.with_name("out2.csv"), client)


def test_a_run_that_is_not_finished_is_not_reproduced(out: Path, client: Client) -> None:
    path = manifest_path(out)
    told = load(path)
    write(path, told.model_copy(update={"counts": told.counts.model_copy(update={"rows": 2})}))
    with pytest.raises(InvalidRequest, match="has 2 of 4 rows; finish its run"):
        reproduced(out, client)
