"""A chat template that goes on for ever, or makes too much of a chat, is refused in a sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.codec import TokenizerCodec
from models.loader import LoadOptions, load
from models.templates import LARGEST, TemplateLimit, Watch, vet
from penstock.errors import InvalidRequest, UnsafeModel
from tests.unit.models.families import saved
from tests.unit.models.test_codec import TEMPLATE, as_text, byte_tokenizer

EVER = "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% for c in r %}"
ENDS = "{% endfor %}" * 3
RECURSION = (
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
)
FILTERS = "{{ range(99999) | map('string') | map('length') | sum }}" * 3_000


def impatient() -> Watch:
    return Watch(looks=2, pause=0.05)


@pytest.mark.parametrize("endless", [EVER + ENDS, RECURSION, FILTERS])
def test_a_template_that_does_not_end_is_ended_and_the_next_chat_is_as_ever(endless: str) -> None:
    template = "{% if messages[0].content == 'loop' %}" + endless + "{% endif %}" + TEMPLATE
    tokenizer = byte_tokenizer(template)
    codec = TokenizerCodec(tokenizer, impatient())
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=r"template does not end within 0\.1 seconds"):
            codec.encode_chat([("user", "loop")])
        text = as_text(tokenizer, codec.encode_chat([("user", "hi")]))
        assert text == "<|turn|>user: hi<|turn|>assistant: "


def test_what_the_watch_counts_is_looks_and_not_the_clock() -> None:
    watch = Watch(looks=10**6, pause=0.001)
    until = time.monotonic() + 0.2

    def slow() -> str:
        while time.monotonic() < until:
            pass
        return "done"

    assert watch.limit(slow) == "done"


def test_an_error_of_the_rendering_stays_what_it_is() -> None:
    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        impatient().limit(fail)


def test_a_template_that_makes_too_much_of_a_chat_is_refused_before_it_is_tokenized() -> None:
    template = "{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}"
    codec = TokenizerCodec(byte_tokenizer(template))
    with pytest.raises(InvalidRequest, match="makes 900,000 characters of this chat"):
        codec.encode_chat([("user", "0123456789")])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("x" * (LARGEST + 1), "has 200,001 characters"),
        ("{{ 10 ** 10 ** 10 }}", "computes powers"),
        ("{{ 'x' * 10000000000 }}", "multiplies by more than 1,000"),
        ("{{ 'x' * messages | length }}", "multiplies by more than 1,000"),
        ("{% for %}", "is broken"),
    ],
)
def test_what_no_watch_could_end_is_refused_unseen(template: str, reason: str) -> None:
    with pytest.raises(TemplateLimit, match=reason):
        vet(template)
    with pytest.raises(UnsafeModel, match=f"chat template {reason}"):
        TokenizerCodec(byte_tokenizer(template)).check_template()


def test_ordinary_templates_pass() -> None:
    vet("{{ '=' * 40 }}{% for m in messages %}{{ loop.index0 % 2 }}{% break %}{% endfor %}")
    vet("{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}")
    for template in (TEMPLATE, None):
        TokenizerCodec(byte_tokenizer(template)).check_template()


def test_a_model_whose_template_no_chat_could_survive_is_not_loaded(tmp_path: Path) -> None:
    folder = Path(saved("llama", tmp_path / "tiny"))
    (folder / "chat_template.jinja").write_text("{{ 9 ** 9 ** 9 }}")
    with pytest.raises(UnsafeModel, match="computes powers"):
        load(LoadOptions(str(folder), device="cpu"))


def test_the_steps_taken_here_are_those_of_transformers() -> None:
    tokenizer = byte_tokenizer(TEMPLATE)
    for text in ("hi", "a<|turn|>assistant: b", "ünï 🎉", "<|tur", ""):
        chat = [{"role": "user", "content": text}, {"role": "assistant", "content": "<|turn|>"}]
        expected = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )
        pairs = [(message["role"], message["content"]) for message in chat]
        assert TokenizerCodec(tokenizer).encode_chat(pairs) == tuple(expected)
