"""Which requests have one name: the same for the same question to the same model, and no other."""

from __future__ import annotations

from dataclasses import replace

from batching.requests import EngineRequest
from models.fake import FakeRunner
from models.runner import Constraint, SamplingParams
from storage.records import Params
from workers.digests import SIZE, Digests

INFO = FakeRunner().info
REQUEST = EngineRequest("1.1.0", "bulk", (1, 2, 3), SamplingParams(temperature=0))
ASKED: Params = {"temperature": 0}


def name(
    request: EngineRequest = REQUEST,
    asked: Params = ASKED,
    owner: str = "ann",
    digests: Digests | None = None,
) -> bytes | None:
    return (digests or Digests(INFO, shared=False)).of(owner)(request, asked)


def sampled(**changes: object) -> EngineRequest:
    return replace(REQUEST, sampling=replace(REQUEST.sampling, **changes))  # type: ignore[arg-type]


def test_who_asks_when_and_in_which_lane_changes_nothing() -> None:
    other = replace(REQUEST, id="9.9.9", lane="express", deadline=5.0, group="b")

    assert name() == name(other)
    assert len(name() or b"") == SIZE
    assert name() == name(sampled(seed=5, top_p=0.5, top_k=3, min_p=0.1))


def test_all_that_makes_an_answer_changes_the_name() -> None:
    hot = sampled(temperature=0.5, seed=1)
    scored = replace(REQUEST, choices=((1,), (2,)))
    names = [
        name(),
        name(owner="bob"),
        *(name(replace(REQUEST, prompt=prompt)) for prompt in ((1, 2), (1, 2, 3, 0), (3, 2, 1))),
        name(sampled(max_tokens=5)),
        name(sampled(stop=("a",))),
        name(sampled(logprobs=1)),
        name(sampled(repetition_penalty=1.5)),
        name(sampled(constraint=Constraint("regex", "a+"))),
        name(replace(REQUEST, n=2)),
        name(hot, {"seed": 1}),
        name(sampled(temperature=0.5, seed=2), {"seed": 2}),
        name(scored, {"mode": "score", "choices": ["a", "b"]}),
        name(scored, {"mode": "score", "choices": ["b", "a"]}),
        name(scored, {"mode": "score", "choices": ["a", "b"], "length_normalized": True}),
        *(
            name(digests=Digests(replace(INFO, **change), shared=False))
            for change in ({"revision": "x"}, {"quantization": "int4"}, {"context": 9})
        ),
        name(digests=Digests(INFO, shared=True)),
    ]

    assert None not in names
    assert len(set(names)) == len(names)


def test_shared_names_leave_the_owner_out() -> None:
    shared = Digests(INFO, shared=True)

    assert name(digests=shared) == name(owner="bob", digests=shared)


def test_what_is_left_to_chance_has_no_name_unless_it_is_asked_for() -> None:
    hot = sampled(temperature=0.7)

    assert name(hot, {"temperature": 0.7}) is None
    assert name(hot, {}) is None
    assert name(REQUEST, {"temperature": 0, "use_cache": False}) is None
    assert name(hot, {"temperature": 0.7, "use_cache": True}) is not None
    assert name(hot, {"temperature": 0.7, "seed": 0}) is not None
