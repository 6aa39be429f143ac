"""Stored parameters in the engine's terms."""

from __future__ import annotations

import json

import pytest

from api import intake
from models.runner import Constraint, SamplingParams
from penstock.schemas.batch import BatchFields
from workers import params

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def stored(**fields: object) -> dict[str, object]:
    """As the API stores a request with these fields, and the database gives it back."""
    found = intake.sampling_params(BatchFields.model_validate(fields))
    return dict(json.loads(json.dumps(found)))


def test_a_request_without_fields_gives_the_engines_own_defaults() -> None:
    assert params.sampling_params(stored()) == SamplingParams()
    assert params.sampling_params({}) == SamplingParams()
    assert params.answers(stored()) == 1
    assert params.labels(stored()) == ()


def test_every_field_of_sampling_arrives() -> None:
    given = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "presence_penalty": -1.0,
        "frequency_penalty": 2.0,
        "seed": 5,
    }

    sampling = params.sampling_params(stored(**given, stop=["a", "b"], n=3))

    assert sampling == SamplingParams(**given, stop=("a", "b"))  # type: ignore[arg-type]
    assert params.answers(stored(n=3)) == 3


@pytest.mark.parametrize(
    ("fields", "logprobs"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 5}, 5),
    ],
)
def test_log_probabilities_are_counted_beside_each_tokens_own(
    fields: dict[str, object], logprobs: int | None
) -> None:
    assert params.sampling_params(stored(**fields)).logprobs == logprobs


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"choices": ["ü", "b"]}, Constraint("choices", '["\\u00fc", "b"]')),
        (
            {"response_format": {"type": "json_object"}},
            Constraint("json_schema", '{"type": "object"}'),
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            Constraint("json_schema", json.dumps(SCHEMA)),
        ),
        ({"response_format": {"type": "regex", "regex": "[a-z]+"}}, Constraint("regex", "[a-z]+")),
    ],
)
def test_what_an_answer_has_to_be_is_a_constraint(
    fields: dict[str, object], constraint: Constraint | None
) -> None:
    assert params.sampling_params(stored(**fields)).constraint == constraint


def test_labels_that_are_scored_constrain_nothing() -> None:
    scored = stored(mode="score", choices=["yes", "no"])

    assert params.labels(scored) == ("yes", "no")
    assert params.sampling_params(scored).constraint is None
    assert params.labels(stored(choices=["yes", "no"])) == ()


def test_what_is_only_counted_is_neither_drawn_nor_reused() -> None:
    counted = stored(mode="count", choices=["yes", "no"], temperature=0, use_cache=True)

    assert params.counts(counted) and not params.counts(stored())
    assert params.labels(counted) == ("yes", "no")
    assert params.sampling_params(counted).constraint is None
    assert not params.reusable(counted)
