"""From the table to the output: what is sent, what is written, and what is refused before."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.annotation.run.annotation import Options
from penstock.annotation.run.partial import write_partial
from penstock.annotation.run.scan import MOST_GOLD, scan
from penstock.annotation.table.source import source_of
from penstock.annotation.task.stop import StopRule
from penstock.annotation.task.task import task_from
from penstock.errors import InvalidRequest
from tests.support.service import Service, problem
from tests.unit.annotation.run.conftest import Bench, ModelService, interrupt

LABELS: dict[str, Any] = {"labels": ("good", "bad"), "text": None}


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def scored(service: Service, good: float = 0.75) -> None:
    """Every prompt is `good`, with so much certainty."""
    shares = {"good": good, "bad": 1 - good}
    service.answer = lambda prompt: None if "fail" in str(prompt) else "good"
    service.detail = lambda prompt: {"scores": {"good": -0.5, "bad": -1.6}, "probabilities": shares}


def test_rows_and_answers_stand_side_by_side_in_input_order(
    bench: Bench, service: ModelService
) -> None:
    service.tokens = lambda prompt: (4, 2)

    summary = bench.run()

    assert bench.output.read_text() == (
        "id,text,answer,needs_review,error,prompt_tokens,completion_tokens\n"
        '1,"a, b","echo: Say a, b",false,,4,2\n'
        "2,fail,,true,engine_error: It failed.,4,2\n"
        "3,c,echo: Say c,false,,4,2\n"
    )
    assert service.asked() == ["Say a, b", "Say fail", "Say c"]
    assert service.jobs["batch_1"].fields["model"] == "tiny"
    assert (summary.rows, summary.failed, summary.review, summary.problem) == (3, 1, 1, None)
    assert summary.history[-1][1] == 3


def test_a_scored_row_has_its_probability_and_the_manifest_its_making(
    bench: Bench, service: ModelService
) -> None:
    scored(service)
    bench.table.write_text("text,gold\na,good\nb,bad\nc,\n")
    summary = bench.run(**LABELS, gold="gold")

    assert [row["label"] for row in bench.rows()] == ["good"] * 3
    assert float(bench.rows()[0]["probability"]) == pytest.approx(0.7503, abs=1e-3)
    assert summary.accuracy is not None
    assert (summary.accuracy.middle, summary.accuracy.low < 0.5) == (0.5, True)
    told = json.loads((bench.folder / "out.csv.manifest.json").read_text())
    assert told["source"]["name"] == "in.csv"
    assert told["source"]["sha256"] == bench.ledger.checksum
    assert told["models"]["tiny"]["name"] == "tiny"
    assert (told["counts"]["gold"], told["counts"]["right"]) == (2, 1)
    assert told["calibration"]["tiny"]["note"].startswith("2 gold rows are too few")
    assert told["jobs"] == bench.ledger.request_ids


def test_voters_are_asked_in_jobs_of_their_own_and_decide_together(
    bench: Bench, service: ModelService
) -> None:
    service.answer = lambda prompt: "bad" if "Tell" in str(prompt) else "good"

    bench.table.write_text("text,other\na,good\nb,bad\nc,\n")

    votes = {"templates": ("Tell {{ text }}",), "columns": ("other",)}
    summary = bench.run(**LABELS, mode="decode", votes=votes)

    found = [(row["label"], row["agreement"], row["needs_review"]) for row in bench.rows()]
    assert found[0] == ("good", str(2 / 3), "true")
    assert found[1] == ("bad", str(2 / 3), "true")
    assert found[2][1:] == ("0.5", "true")
    assert len(service.works) == 2
    assert summary.review == 3


def test_a_voter_that_fails_is_named_though_others_decide(
    bench: Bench, service: ModelService
) -> None:
    service.answer = lambda prompt: None if "zz" in str(prompt) else "good"
    bench.table.write_text("text,other\na,good\nzz,bad\nzz,\n")

    summary = bench.run(**LABELS, mode="decode", votes={"columns": ("other",)})

    assert [row["label"] for row in bench.rows()] == ["good", "bad", ""]
    assert summary.failed == 1
    assert bench.heard.notes[-1] == (
        "tiny: no answer to 1 row, which the other voters decided "
        "(the first: engine_error: It failed.)"
    )


def test_sets_of_labels_agree_with_gold_in_a_text_table(
    bench: Bench, service: ModelService
) -> None:
    service.answer = lambda prompt: '["bad"]' if "zz" in str(prompt) else '["bad", "good"]'
    bench.table.write_text('text,gold\na,"good, bad"\nzz,bad\nc,"bad,good"\n')

    bench.run(**LABELS, mode="decode", several=True, gold="gold")

    told = json.loads(Path(f"{bench.output}.manifest.json").read_text())
    assert told["agreement"]["kappa"]["middle"] == 1.0


def test_says_where_prompts_without_content_make_answers_worse(
    bench: Bench, service: ModelService
) -> None:
    def detail(prompt: object) -> dict[str, object]:
        good = 0.9 if "N/A" in str(prompt) else 0.75
        scores = {"good": math.log(good), "bad": math.log(1 - good)}
        return {"scores": scores, "probabilities": {"good": good, "bad": 1 - good}}

    service.answer = lambda prompt: "good"
    service.detail = detail
    bench.table.write_text("text,gold\na,good\nb,good\nc,bad\nd,\n")

    bench.run(**LABELS, gold="gold", content_free=("N/A",))

    assert bench.heard.notes[-1] == (
        "tiny: With content_free 33.3% of its answers to gold rows are right, without it 66.7%."
    )


def test_what_a_prompt_without_content_gets_is_taken_from_the_scores(
    bench: Bench, service: ModelService
) -> None:
    scored(service)

    bench.run(**LABELS, content_free=("N/A", ""))

    assert {float(row["probability"]) for row in bench.rows() if row["probability"]} == {0.5}
    [line] = bench.ledger.lines
    assert line.prior is not None
    assert line.prior.rows == 2


def test_other_prompts_without_content_are_asked_anew_and_no_row_is(
    bench: Bench, service: ModelService
) -> None:
    scored(service)
    bench.run(**LABELS, content_free=("N/A",))
    bench.run(**LABELS, content_free=("", "[MASK]"))
    bench.run(**LABELS)

    asked = [
        [str(one).splitlines()[0] for one in service.jobs[id].messages] for id in service.works
    ]
    rows = ["Say a, b", "Say fail", "Say c"]
    assert asked == [["Say N/A"], rows, ["Say ", "Say [MASK]"]]
    assert {float(row["probability"]) for row in bench.rows() if row["probability"]} != {0.5}


def test_labels_that_begin_alike_are_named_before_anything_runs(
    bench: Bench, service: ModelService
) -> None:
    scored(service)

    bench.run(**{**LABELS, "labels": ("good", "gone")})

    assert bench.heard.notes[0].startswith("Labels begin with the same token: 'good' and 'gone'")


def test_a_prompt_that_is_told_the_gold_answer_is_pointed_out(
    bench: Bench, service: ModelService
) -> None:
    scored(service)
    bench.table.write_text("text,gold\na,good\n")

    bench.run(**LABELS, gold="gold", template="{{ text }}, {{ gold }}?")

    assert bench.heard.notes[0].startswith("`template` names 'gold', the gold column: the model")


def test_of_very_many_gold_rows_an_even_sample_is_kept(bench: Bench) -> None:
    rows = 3 * MOST_GOLD
    bench.table.write_text("text,gold\n" + "".join(f"{n},good\n" for n in range(rows)))
    task = task_from("{{ text }}", labels=("good", "bad"), gold="gold")

    one, again = (
        scan(source_of(bench.table), task, ["text"], bench.heard, None).gold for _ in range(2)
    )

    assert one == again
    assert len(one) == MOST_GOLD
    assert sum(one) / MOST_GOLD == pytest.approx(rows / 2, rel=0.02)
    assert sum(number < MOST_GOLD for number in one) == pytest.approx(MOST_GOLD / 3, rel=0.05)


def test_rows_that_are_equal_to_others_and_their_tokens_are_in_the_receipt(
    bench: Bench, service: ModelService
) -> None:
    service.tokens = lambda prompt: (4, 2)
    service.reused = lambda prompt: str(prompt).endswith("c")

    receipt = bench.run().receipt

    assert (receipt.rows, receipt.reused_rows) == (3, 1)
    assert (receipt.prompt_tokens, receipt.completion_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"template": "{{ no }}"}, Options(), "has no column 'no'"),
        ({"gold": "no"}, Options(), "has no column 'no', which `gold` names"),
        (LABELS | {"gold": "id"}, Options(), "in.csv, line 2: the column 'id' has '1', which is"),
        ({"template": "{% if id == '3' %}{% else %}x{{ text }}{% endif %}"}, Options(), "line 4"),
        ({"prefix": ""}, Options(promote=True), "There is no pilot to promote"),
        ({}, Options(fresh=True, promote=True), "--fresh does not"),
        ({}, Options(stop_if=StopRule.parse("accuracy < 0.8")), "needs gold rows"),
        (
            LABELS | {"gold": "none"},
            Options(stop_if=StopRule.parse("accuracy < 0.8")),
            "in.csv is empty.",
        ),
        (
            LABELS | {"votes": {"columns": ["text"]}},
            Options(stop_if=StopRule.parse("review > 0.5")),
            "cannot be judged before the end",
        ),
        ({}, Options(pilot_rows=20_001), "20,000 rows at most"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    bench: Bench, service: Service, changes: dict[str, Any], options: Options, sentence: str
) -> None:
    bench.table.write_text('id,text,none\n1,"a, b",\n2,fail,\n3,c,\n')
    with pytest.raises(InvalidRequest) as caught:
        bench.run(options, **changes)

    assert sentence in caught.value.message
    assert caught.value.param is not None
    assert service.jobs == {}
    assert files_of(bench.folder) == ["in.csv"]


@pytest.mark.parametrize("content", ["id,text\n", "answer,text\na,b\n"])
def test_a_table_without_rows_or_with_a_column_of_the_new_names_is_refused(
    bench: Bench, service: Service, content: str
) -> None:
    bench.table.write_text(content)

    with pytest.raises(InvalidRequest, match=r"in\.csv has (no rows|a column 'answer' already)"):
        bench.run()

    assert service.jobs == {}


def test_a_refusal_of_the_service_is_shown_and_nothing_is_remembered(
    bench: Bench, service: Service
) -> None:
    service.faults.extend([problem(422, "invalid_request", "At most 2 prompts.", "messages")])

    with pytest.raises(InvalidRequest, match=r"At most 2 prompts\."):
        bench.run()

    assert files_of(bench.folder) == ["in.csv"]
    assert bench.run(template="Tell {{ text }}").rows == 3


def test_a_job_that_did_not_complete_leaves_rows_with_reasons_and_the_others_as_they_are(
    bench: Bench, service: Service
) -> None:
    service.hold = True
    bench.heard.on_sent = lambda: service.finish("cancelled")

    summary = bench.run()

    assert summary.problem is not None
    assert "batch_1 is cancelled; without an answer: 1 of 3 rows" in summary.problem
    assert [row["answer"] for row in bench.rows()] == ["echo: Say a, b", "", "echo: Say c"]


def test_a_stop_rule_cancels_the_rest_and_says_why(bench: Bench, service: ModelService) -> None:
    scored(service)
    service.hold = service.eager = True
    bench.table.write_text("text,gold\n" + "".join(f"{n},bad\n" for n in range(40)))

    summary = bench.run(
        Options(stop_if=StopRule.parse("accuracy < 0.8")), **LABELS, mode="decode", gold="gold"
    )

    assert summary.problem == bench.heard.notes[-1]
    assert summary.problem.startswith("Stopped, since accuracy < 0.8")
    assert [service.jobs[id].status for id in service.works] == ["cancelled"]


def test_a_table_that_changes_while_its_run_goes_on_is_never_written_beside_wrong_answers(
    bench: Bench, service: Service
) -> None:
    original = bench.table.read_text()
    for content in ("id,text\n1,z\n2,fail\n3,c\n", "id,text\n1,z\n", "id,text\n" + "9,9\n" * 9):
        bench.heard.on_progress = partial(bench.table.write_text, content)
        with pytest.raises(InvalidRequest, match="has changed since its run began"):
            bench.run(Options(fresh=True))
        bench.table.write_text(original)

    assert files_of(bench.folder) == ["in.csv", "out.csv.penstock.json"]


def test_what_there_is_of_a_run_can_be_written_at_any_time(bench: Bench, service: Service) -> None:
    service.hold = True
    bench.heard.on_progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.run(Options(pilot_rows=2))
    target = bench.folder / "partial.csv"

    before = write_partial(bench.output, target, bench.client)
    service.finish()
    after = write_partial(bench.output, target, bench.client)

    assert (before.done, before.total, after.done) == (0, 2, 2)
    assert len(target.read_text().splitlines()) == 3
    assert (bench.folder / "partial.csv.manifest.json").exists()
    assert not bench.output.exists()
    with pytest.raises(InvalidRequest, match=r"There is no run of .*none\.csv"):
        write_partial(bench.folder / "none.csv", target, bench.client)
