"""The committed model: small, loadable offline, and able to do the two things it is for."""

import json
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from examples.stdlib.answers import Answerer
from examples.stdlib.evaluate import token_f1
from examples.stdlib.extract import Row, extract, part_of
from examples.stdlib.prompts import summary_prompt, topic_prompt
from examples.stdlib.topics import LABELS

MODEL = Path(__file__).parents[3] / "assets" / "penstock-tiny"


@pytest.fixture(scope="module")
def model() -> Answerer:
    return Answerer(MODEL)


def _heldout_sample(count: int) -> list[Row]:
    rows = [row for row in extract() if part_of(row.docstring) == "heldout"]
    return rows[:: len(rows) // count][:count]


def test_the_weights_are_at_most_eight_megabytes_of_safetensors() -> None:
    assert (MODEL / "model.safetensors").stat().st_size <= 8_000_000
    assert not list(MODEL.glob("*.bin")) + list(MODEL.glob("*.pt")) + list(MODEL.glob("*.py"))


def test_greedy_decoding_and_the_end_token_are_the_defaults() -> None:
    generation = json.loads((MODEL / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)

    assert generation["do_sample"] is False
    assert generation["eos_token_id"] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("text", ["naïve café", "日本語 🙂", "\x00\t\r\n x", "\u200b", "a  b   c"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)

    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_chat_template_marks_roles_and_opens_the_answer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello "}]

    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    assert text == "<|system|>Be brief.<|end|><|user|>Hello<|end|><|assistant|>"


@pytest.mark.parametrize("name", ["shutil.copytree", "json.dumps", "os.path.join", "math.sqrt"])
def test_a_trained_name_is_answered_with_its_summary(model: Answerer, name: str) -> None:
    summary = next(row.summary for row in extract() if row.name == name)

    [answer] = model.answer([summary_prompt(name)], max_tokens=48)

    assert token_f1(answer, summary) >= 0.8


def test_topics_of_unseen_docstrings_are_named_far_above_the_majority_class(
    model: Answerer,
) -> None:
    rows = _heldout_sample(200)

    answers = model.answer([topic_prompt(row) for row in rows], max_tokens=8)

    right = sum(answer == row.topic for answer, row in zip(answers, rows, strict=True))
    majority = Counter(row.topic for row in rows).most_common(1)[0][1]
    assert right / len(rows) >= 0.7
    assert right >= majority * 1.5
    assert set(answers) <= set(LABELS)
