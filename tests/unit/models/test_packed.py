"""The packed runner follows its plans, whatever rows do; what it is built of is checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from models.loader import LoadOptions, load
from models.native import speedups
from models.packed.build import SpeedUp, Spoiled, build
from models.packed.memory import Wishes
from models.packed.model import Unpackable
from models.packed.runner import PackedRunner
from models.runner import Chunk, FinishReason, ModelInfo, Place, Region, StepPlan
from penstock.errors import ModelError
from tests.unit.models.families import Packer, model, packed, saved
from tests.unit.models.tiny import CONTEXT, alone, greedy, prompts, tokenizer

INFO = ModelInfo("tiny", 0, 0, "cpu", "fp32", CONTEXT, "padded", notes=("earlier",))


def built(family: str = "llama", speed_up: SpeedUp | None = speedups.apply) -> PackedRunner:
    wishes = Wishes(max_rows=4, express_rows=2)
    return build(model(family), tokenizer(), INFO, wishes, speed_up=speed_up)


def test_rows_that_are_dropped_or_forgotten_leave_no_trace() -> None:
    runner = packed(model("llama"), slots=2)
    first, second, third = prompts(3)
    rows = [greedy("a", first), greedy("b", second)]
    homes = Region(0, CONTEXT), Region(CONTEXT, CONTEXT)
    chunks = tuple(Chunk(row.id, len(row.prompt)) for row in rows)
    runner.step(StepPlan(tuple(rows), tuple(Place(home) for home in homes), chunks))
    # A third row has room only because one leaves in the same step.
    row = greedy("c", third)
    runner.step(StepPlan((row,), (Place(homes[0]),), (Chunk("c", len(third)),), drop=("a",)))
    packer = Packer(runner)
    assert runner.step(StepPlan(drop=("b", "c"))).rows == ()
    runner.forget(0)
    assert packer.run([row])["c"] == alone(model("llama"), row)


def test_only_the_rows_that_a_plan_names_decode() -> None:
    runner = packed(model("llama"))
    rows = [greedy(f"r{number}", prompt, 4) for number, prompt in enumerate(prompts(2))]
    places = tuple(Place(Region(at * CONTEXT, CONTEXT)) for at in range(2))
    chunks = tuple(Chunk(row.id, len(row.prompt)) for row in rows)
    first = runner.step(StepPlan(tuple(rows), places, chunks, decode=frozenset()))
    assert (first.started, first.sampled) == (("r0", "r1"), 2)
    assert runner.step(StepPlan(decode=frozenset({"r1"}))).sampled == 1
    assert runner.step(StepPlan(decode=frozenset())).sampled == 0
    said: dict[str, str] = {}
    while len(said) < 2:
        said |= {row.id: row.text for row in runner.step(StepPlan()).rows}
    assert said == {row.id: alone(model("llama"), row) for row in rows}


def test_a_copied_beginning_is_not_read_again() -> None:
    runner = packed(model("mistral"))
    begin, tail = (prompt * 20 for prompt in prompts(2))
    begin, tail = begin[:30], tail[:10]
    packer = Packer(runner, budget=64)
    kept = packer.add(greedy("first", begin + tail, 3))
    packer.run()
    again = greedy("again", begin + tail[::-1], 12)
    place = Place(Region(4 * CONTEXT, CONTEXT), copy=Region(kept.start, len(begin)))
    output = runner.step(StepPlan((again,), (place,), (Chunk("again", 10),)))
    assert output.tokens_read == output.tokens_needed == 10
    text = "".join(row.text for row in output.rows)
    while not any(row.finish for row in output.rows):
        output = runner.step(StepPlan())
        text += "".join(row.text for row in output.rows)
    assert text == alone(model("mistral"), again)


def test_nothing_is_padded_but_keys_of_rows_in_one_group() -> None:
    runner = packed(model("llama"))
    packer = Packer(runner, budget=200)
    for number, prompt in enumerate(prompts(6)):
        packer.add(greedy(f"r{number}", prompt, 30))
    packer.step()
    output = runner.step(StepPlan())
    assert output.tokens_read == output.tokens_needed
    assert 1 <= output.keys_read / output.keys_needed <= 1.5


def test_an_answer_ends_where_the_context_does() -> None:
    runner = packed(model("llama"))
    row = greedy("r", tuple(prompts(1)[0] * CONTEXT)[: CONTEXT - 3], max_tokens=50)
    home = Place(Region(0, CONTEXT))
    output = runner.step(StepPlan((row,), (home,), (Chunk("r", len(row.prompt)),)))
    while not output.rows:
        output = runner.step(StepPlan())
    assert output.rows[0].tokens <= 3
    assert output.rows[0].finish in (FinishReason.LENGTH, FinishReason.STOP)


def test_what_is_built_tells_its_sizes_and_answers_as_the_model() -> None:
    runner = built()
    info = runner.info
    assert (info.runner, info.max_rows, info.kv_tokens) == ("packed", 4, 6 * CONTEXT)
    assert info.kv_bytes >= info.kv_tokens * 512
    assert info.notes[0] == "earlier"
    assert "attention" in info.notes[1]
    assert "4 rows at once" in info.notes[-1]
    rows = [greedy(f"r{number}", prompt) for number, prompt in enumerate(prompts(5))]
    own = model("llama")
    assert Packer(runner).run(rows) == {row.id: alone(own, row) for row in rows}


def test_without_faster_layers_it_answers_the_same() -> None:
    row = greedy("r", prompts(1)[0])
    assert Packer(built(speed_up=None)).run([row]) == Packer(built()).run([row])


def spoil(made: Any) -> Iterable[str]:
    made.model.layers[1].mlp.down_proj.weight.data *= 1.05
    return ("quicker layers",)


def test_what_makes_layers_faster_but_wrong_is_found() -> None:
    with pytest.raises(Spoiled, match="with quicker layers its logits are not its own"):
        built(speed_up=spoil)


def test_a_model_that_was_spoiled_is_loaded_again(tmp_path: Path) -> None:
    options = LoadOptions(saved("llama", tmp_path / "llama"), device="cpu")
    runner = load(options, speed_up=spoil)
    row = greedy("r", prompts(1)[0])
    assert Packer(runner).run([row])["r"] == alone(model("llama"), row)
    assert runner.info.runner == "packed"
    assert "quicker layers" not in runner.info.notes


def test_what_cannot_run_packed_is_not_touched() -> None:
    def never(made: Any) -> Iterable[str]:
        raise AssertionError

    with pytest.raises(Unpackable, match="s_aux"):
        built("gpt_oss", speed_up=never)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_int8_rows_do_not_change_their_neighbors(tmp_path: Path, family: str) -> None:
    folder = saved(family, tmp_path / family)
    runner = load(LoadOptions(folder, quantization="int8", device="cpu", max_rows=8))
    rows = [greedy(f"r{number}", prompt, 12) for number, prompt in enumerate(prompts(6))]
    together = Packer(runner).run(rows)
    assert together == {row.id: Packer(runner).run([row])[row.id] for row in rows}


def test_memory_that_cannot_be_had_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="tokens take"):
        build(model("llama"), tokenizer(), INFO, Wishes(kv_tokens=2**40), speed_up=None)


def test_the_arena_is_not_taken_before_it_is_used() -> None:
    before = _resident()
    runner = build(model("llama"), tokenizer(), INFO, Wishes(kv_tokens=2**20), speed_up=None)
    assert runner.info.kv_bytes >= 2**29
    assert _resident() - before < 2**27


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096
