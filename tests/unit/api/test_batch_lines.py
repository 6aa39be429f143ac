"""Lines of an input file: what runs, and what is said of the rest."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from api.batch_lines import MAX_ERRORS, BadFile, Rules, Stopped, find_model, read_prompts
from storage.records import NewPrompt

CHAT = "/v1/chat/completions"
RULES = Rules(
    endpoint=CHAT,
    configured="fake",
    served=frozenset({"fake", "other"}),
    quarantine=False,
    max_lines=1_000,
    max_prompt_bytes=100,
)


def line(name: object, text: str = "hello", **body: object) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": name,
        "method": "POST",
        "url": CHAT,
        "body": {"model": "fake", "messages": messages, **body},
    }


def read(*lines: object, rules: Rules = RULES, model: str = "fake") -> list[NewPrompt]:
    content = b"\n".join(
        one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines
    )
    return list(read_prompts(io.BytesIO(content), rules, model, lambda: False))


def error_of(*lines: object, rules: Rules = RULES) -> tuple[str, str | None, int | None]:
    with pytest.raises(BadFile) as caught:
        read(*lines, rules=rules)
    (error,) = caught.value.errors
    return error.code, error.param, error.line


def test_each_line_has_its_own_prompt_name_and_parameters() -> None:
    first, second = read(line("a", max_tokens=5), b"", b" \r", line("b", "bye", temperature=0.5))

    assert (first.custom_id, first.messages) == ("a", (("user", "hello"),))
    assert first.params is not None and first.params["max_tokens"] == 5
    assert (second.custom_id, second.messages) == ("b", (("user", "bye"),))
    assert second.params is not None and second.params["temperature"] == 0.5


def test_a_byte_order_mark_and_an_end_without_a_newline_are_no_error() -> None:
    (prompt,) = read(b"\xef\xbb\xbf" + json.dumps(line("a")).encode())

    assert prompt.custom_id == "a"


without_url = {key: value for key, value in line("x").items() if key != "url"}


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (b"{", ("invalid_json_line", None, 2)),
        (b"[]", ("invalid_json_line", None, 2)),
        (b"\xff", ("invalid_json_line", None, 2)),
        (b'{"a":' * 5_000, ("invalid_json_line", None, 2)),
        (line("first"), ("duplicate_custom_id", "custom_id", 2)),
        (line(None), ("missing_required_parameter", "custom_id", 2)),
        (line(7), ("invalid_custom_id", "custom_id", 2)),
        (line("x" * 513), ("invalid_custom_id", "custom_id", 2)),
        (line("a\0"), ("invalid_custom_id", "custom_id", 2)),
        (without_url, ("missing_required_parameter", "url", 2)),
        (line("x") | {"method": "GET"}, ("invalid_method", "method", 2)),
        (line("x") | {"url": "/v1/completions"}, ("url_mismatch", "url", 2)),
        (line("x") | {"more": 1}, ("unknown_parameter", "more", 2)),
        (line("x") | {"body": []}, ("invalid_request", "body", 2)),
        (line("x", model="other"), ("model_mismatch", "body.model", 2)),
        (line("x", model="nobody's"), ("model_not_found", "body.model", 2)),
        (line("x", temperature=9), ("invalid_request", "body.temperature", 2)),
        (line("x", stream=True), ("unsupported_parameter", "body.stream", 2)),
        (line("x", priority=5), ("unsupported_parameter", "body.priority", 2)),
        (line("x", metadata={"a": "b"}), ("unsupported_parameter", "body.metadata", 2)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_with_a_line_is_named(bad: object, expected: tuple[str, str, int]) -> None:
    assert error_of(line("first"), bad, line("last")) == expected


def test_a_line_that_is_too_long_is_passed_over_without_being_held() -> None:
    rules = replace(RULES, max_prompt_bytes=1, quarantine=True)
    huge = b'{"custom_id": "' + b"x" * (3 * rules.max_line_bytes) + b'"}'

    one, two, three = read(line("a", "x"), huge, line("b", "y"), rules=rules)

    assert [one.error_code, two.error_code, three.error_code] == [None, "line_too_large", None]
    assert three.custom_id == "b"


def test_a_file_without_lines_and_one_with_too_many_fail_as_a_whole() -> None:
    assert error_of() == ("empty_file", None, None)
    assert error_of(b"\n\n") == ("empty_file", None, None)
    few = replace(RULES, max_lines=2, quarantine=True)
    assert error_of(*map(line, "abc"), rules=few) == ("too_many_tasks", None, 3)


def test_all_errors_are_told_up_to_a_bound() -> None:
    with pytest.raises(BadFile) as some:
        read(line("a"), b"{", line("b"), b"{")
    with pytest.raises(BadFile) as many:
        read(*[b"{"] * 500)

    assert [error.line for error in some.value.errors] == [2, 4]
    assert len(many.value.errors) == MAX_ERRORS + 1
    assert many.value.errors[-1].code == "too_many_errors"


def test_in_quarantine_bad_lines_fail_alone_and_keep_their_name() -> None:
    rules = replace(RULES, quarantine=True)

    prompts = read(line("a"), b"{", line("c", temperature=9), line("d"), rules=rules)

    assert [prompt.custom_id for prompt in prompts] == ["a", None, "c", "d"]
    assert [prompt.error_code for prompt in prompts] == [
        None,
        "invalid_json_line",
        "invalid_request",
        None,
    ]
    assert str(prompts[1].error_message).startswith("Line 2: ")


def test_the_first_line_that_can_run_says_which_model() -> None:
    def model(*lines: object) -> str:
        content = b"\n".join(json.dumps(one).encode() for one in lines)
        return find_model(io.BytesIO(content), RULES, lambda: False)

    assert model(line("a", model="nobody's"), {}, line("b", model="other"), line("c")) == "other"
    assert model({}) == model() == "fake"


def test_a_process_that_is_about_to_end_reads_no_further() -> None:
    content = json.dumps(line("a")).encode()

    with pytest.raises(Stopped):
        list(read_prompts(io.BytesIO(content), RULES, "fake", lambda: True))


def test_a_large_file_is_read_without_being_held(tmp_path: Path) -> None:
    path, rules = tmp_path / "in.jsonl", replace(RULES, max_prompt_bytes=20_000)
    content = b"".join(
        json.dumps(line(n, "x" * 10_000)).encode() + b"\n" for n in map(str, range(1_000))
    )
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with path.open("rb") as stream:
            count = sum(1 for _ in read_prompts(stream, rules, "fake", lambda: False))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 1_000
    assert peak < len(content) / 10
