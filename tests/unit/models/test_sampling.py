"""Sampled tokens follow the exact distribution that the parameters ask for, row by row."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.drawing import MOST_RANKED, DrawParams, draw, likeliest, uniform
from models.runner import Row, SamplingParams
from models.sampling import Sampled, Sampler

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -1.5, 0.5, -4.0]
DRAWS = 4_000
CPU = torch.device("cpu")


def sampler(*rows: Row, vocabulary: int = len(LOGITS), ends: tuple[int, ...] = ()) -> Sampler:
    made = Sampler(len(rows), vocabulary, CPU, frozenset(ends), None)
    for slot, row in enumerate(rows):
        made.admit(slot, row, 1_000)
    return made


def choose(made: Sampler, logits: Any, slots: list[int]) -> Sampled:
    return made.choose(torch.tensor(logits), torch.tensor(slots, dtype=torch.int64))


def tokens(made: Sampler, logits: list[float], slots: list[int]) -> list[int]:
    found: list[int] = choose(made, [logits] * len(slots), slots).tokens.tolist()
    return found


def row(id: str, *, prompt: tuple[int, ...] = (1,), branch: int = 0, **params: Any) -> Row:
    return Row(id, prompt, SamplingParams(**{"top_p": 1.0, **params}), branch=branch)


def exact(params: SamplingParams, logits: list[float]) -> list[float]:
    """By the definitions, one token at a time: temperature, top-k, top-p, min-p."""
    weights = [math.exp(logit / params.temperature) for logit in logits]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    kept = order[: params.top_k or None]
    mass, nucleus = sum(weights[token] for token in kept), []
    for token in kept:
        nucleus.append(token)
        if sum(weights[t] for t in nucleus) >= params.top_p * mass:
            break
    kept = [token for token in nucleus if weights[token] >= params.min_p * max(weights)]
    # Tokens that tie with the last one kept are kept.
    kept = [token for token in order if weights[token] >= min(weights[t] for t in kept) - 1e-12]
    total = sum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(weights))]


def punished(params: SamplingParams, prompt: list[int], answer: list[int]) -> list[float]:
    """CTRL's penalty of what was seen, then OpenAI's of what was answered."""
    out = []
    for token, value in enumerate(LOGITS):
        changed = value
        if token in [*prompt, *answer]:
            factor = params.repetition_penalty
            changed = value / factor if value > 0 else value * factor
        count = answer.count(token)
        changed -= params.presence_penalty * (count > 0) + params.frequency_penalty * count
        out.append(changed)
    return out


def check(counts: Counter[int], expected: list[float]) -> None:
    """Chi-square at five standard deviations; what has no probability never comes. Rare tokens,
    fewer than five expected, count as one."""
    draws = counts.total()
    assert set(counts) <= {token for token, share in enumerate(expected) if share > 0}
    cells = [(counts[t], draws * share) for t, share in enumerate(expected) if share > 0]
    common = [cell for cell in cells if cell[1] >= 5]
    rare = [cell for cell in cells if cell[1] < 5]
    if rare:
        common.append((sum(seen for seen, _ in rare), sum(wanted for _, wanted in rare)))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in common)
    freedom = len(common) - 1
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom) + 1e-9


PARAMS = [
    SamplingParams(temperature=1.0, top_p=1.0),
    SamplingParams(temperature=0.5, top_p=1.0),
    SamplingParams(temperature=1.0, top_p=0.7),
    SamplingParams(temperature=1.0, top_p=1.0, top_k=2),
    SamplingParams(temperature=1.3, top_p=1.0, top_k=3),
    SamplingParams(temperature=1.0, top_p=1.0, min_p=0.2),
    SamplingParams(temperature=1.7, top_p=0.8, top_k=5, min_p=0.1),
    SamplingParams(temperature=1.0, top_p=0.01),
    SamplingParams(temperature=1.0, top_p=1.0, top_k=1_000),
    SamplingParams(temperature=1.0, top_p=0.85),  # ends at one of two tokens that tie
]


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("repeat", [1, 40])
def test_frequencies_are_those_of_the_exact_distribution(
    params: SamplingParams, repeat: int
) -> None:
    rows = [Row(f"r{n}", (1,), replace(params, seed=n)) for n in range(DRAWS // repeat)]
    made, slots = sampler(*rows), list(range(len(rows)))
    counts = Counter(token for _ in range(repeat) for token in tokens(made, LOGITS, slots))
    check(counts, exact(params, LOGITS))


def test_rows_of_different_parameters_do_not_mix() -> None:
    rows = [Row(f"r{n}", (1,), replace(PARAMS[n % 10], seed=n)) for n in range(DRAWS)]
    drawn = tokens(sampler(*rows), LOGITS, list(range(DRAWS)))
    for kind, params in enumerate(PARAMS):
        check(Counter(drawn[kind::10]), exact(params, LOGITS))


def test_penalties_are_those_of_the_formulas_after_every_token() -> None:
    params = SamplingParams(
        temperature=1.0,
        top_p=1.0,
        repetition_penalty=1.4,
        presence_penalty=0.3,
        frequency_penalty=0.2,
    )
    prompt, count = [2, 2, 4], 600
    rows = [Row(f"r{n}", tuple(prompt), replace(params, seed=n)) for n in range(count)]
    made, slots = sampler(*rows), list(range(count))
    answers: list[list[int]] = [[] for _ in rows]
    for _ in range(3):
        for answer, token in zip(answers, tokens(made, LOGITS, slots), strict=True):
            answer.append(token)
    counts: Counter[int] = Counter()
    expected = [0.0] * len(LOGITS)
    for answer in answers:
        counts[answer[2]] += 1
        for token, share in enumerate(exact(params, punished(params, prompt, answer[:2]))):
            expected[token] += share / count
    check(counts, expected)


@pytest.mark.parametrize("name", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_a_penalty_falls_on_what_it_should_and_leaves_with_its_row(name: str) -> None:
    given: dict[str, Any] = {name: 1.6}
    params = SamplingParams(temperature=0, **given)
    made = sampler(Row("r", (0,), params), row("plain", temperature=0.0))
    answer: list[int] = []
    for _ in range(6):
        wanted = punished(params, [0], answer)
        token, plain = tokens(made, LOGITS, [0, 1])
        assert (token, plain) == (wanted.index(max(wanted)), 0)
        answer.append(token)
    made.release([0])
    made.admit(0, Row("next", (3,), params), 10)
    assert tokens(made, LOGITS, [0]) == [0]


@pytest.mark.parametrize("vocabulary", [300, 1_000, 6_000])
def test_all_ways_to_draw_agree_from_peaked_to_flat_and_with_ties(vocabulary: int) -> None:
    torch.manual_seed(1)
    logits = torch.randn(48, vocabulary) * torch.linspace(0.01, 6, 48)[:, None]
    logits[40:] = (logits[40:] * 2).round()
    each = torch.arange(48)[:, None]
    params = DrawParams(
        temperature=0.3 + each % 5 * 0.4,
        top_p=torch.tensor([1.0, 0.95, 0.5])[each % 3],
        min_p=torch.tensor([0.0, 0.02])[each % 2],
        top_k=torch.tensor([0, 20, 300, 5_000])[each % 4],
        cuts=True,
    )
    keys = torch.arange(48) * 77
    for count in range(20):
        numbers = uniform(keys, torch.full_like(keys, count))
        fast = draw(logits, params, numbers)
        assert fast.tolist() == draw(logits, params, numbers, MOST_RANKED + 1).tolist()


def test_a_flat_vocabulary_wider_than_what_is_ranked_first_is_cut_rightly() -> None:
    rows = [row("flat", temperature=1.0, top_p=0.5, seed=3), row("one", top_k=1)]
    logits = torch.stack([torch.linspace(0, 1e-3, 5_000), torch.linspace(9, 0, 5_000)])
    made = sampler(*rows, vocabulary=5_000)
    drawn = [made.choose(logits, torch.arange(2)).tokens.tolist() for _ in range(500)]
    flat = [token for token, _ in drawn]
    assert 2_490 <= min(flat) < 2_600
    assert max(flat) > 4_900
    assert {token for _, token in drawn} == {0}


def test_a_seed_gives_the_same_tokens_whatever_slot_neighbors_and_order() -> None:
    def run(made: Sampler, slots: list[int], at: int) -> list[int]:
        return [tokens(made, LOGITS, slots)[at] for _ in range(30)]

    same = row("a", temperature=1.0, seed=42)
    alone = run(sampler(same), [0], 0)
    others = [row(f"o{n}", temperature=n / 2, top_k=n, presence_penalty=n) for n in range(4)]
    crowd = sampler(*others, replace(same, id="b"))
    assert run(crowd, [4, 1, 3], 0) == alone
    crowd.release([4])
    crowd.admit(4, same, 1_000)
    assert run(crowd, [0, 1, 2, 3, 4], 4) == alone
    assert run(sampler(row("a", temperature=1.0, seed=43)), [0], 0) != alone
    assert run(sampler(replace(same, branch=1)), [0], 0) != alone
    assert run(sampler(row("a", temperature=1.0, seed=42 + 2**64)), [0], 0) != alone


def test_a_row_without_a_seed_draws_the_same_when_it_starts_again() -> None:
    def run(one: Row) -> list[int]:
        made = sampler(one)
        return [tokens(made, LOGITS, [0])[0] for _ in range(30)]

    one = row("x", temperature=1.0)
    assert run(one) == run(one)
    assert run(one) != run(replace(one, id="y"))
    assert run(one) != run(replace(one, branch=1))


def test_random_numbers_are_splitmix64() -> None:
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    key = torch.full((4,), 1234567)
    assert uniform(key, torch.arange(4)).tolist() == [(bits >> 11) * 2.0**-53 for bits in first]


def test_logprobs_are_of_the_model_s_own_logits_and_each_row_has_its_own_number() -> None:
    own = torch.tensor(LOGITS).log_softmax(-1).tolist()
    rows = [
        row("a", temperature=0.1, seed=1, logprobs=2, presence_penalty=1.0, top_k=1),
        row("none", temperature=0.0),
        row("b", temperature=0.0, logprobs=0),
        row("c", temperature=1.5, seed=1, logprobs=5),
    ]
    made = sampler(*rows)
    for _ in range(3):
        sampled = choose(made, [LOGITS] * 4, [3, 0, 1, 2])
        found = sampled.logprobs
        assert found is not None
        assert found.rows.tolist() == [0, 1, 3]
        wanted = [own[token] for token in sampled.tokens[found.rows].tolist()]
        assert found.chosen.tolist() == pytest.approx(wanted, abs=1e-6)
        assert found.top.shape == (3, 5)
        best = sorted(own, reverse=True)[:5]
        assert found.top[0].tolist() == pytest.approx(best, abs=1e-6)
        assert [own[token] for token in found.top_tokens[0].tolist()] == pytest.approx(best)
    assert choose(made, [LOGITS], [1]).logprobs is None


def test_end_tokens_and_limits_end_rows() -> None:
    made = Sampler(2, len(LOGITS), CPU, frozenset({3, 99}), None)
    made.admit(0, row("a", temperature=0.0), 2)
    made.admit(1, row("b", temperature=0.0), 9)
    ending = [0.0, 0, 0, 5, 0, 0, 0, 0]
    assert choose(made, [LOGITS, LOGITS], [0, 1]).ended.tolist() == [False, False]
    sampled = choose(made, [LOGITS, ending], [0, 1])
    assert (sampled.tokens.tolist(), sampled.ended.tolist()) == ([0, 3], [True, True])
    assert sampled.complete.tolist() == [False, False]


def test_a_temperature_near_zero_is_greedy_and_not_an_overflow() -> None:
    rows = [row("a", temperature=1e-30), row("b", temperature=1e-30, top_p=0.9)]
    assert tokens(sampler(*rows), LOGITS, [0, 1]) == [0, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_output_that_is_not_a_number_is_an_error(temperature: float) -> None:
    made = sampler(row("a", temperature=temperature))
    with pytest.raises(FloatingPointError):
        choose(made, [[0.0, float("nan"), *LOGITS[2:]]], [0])


def test_no_rows_are_no_tokens() -> None:
    assert sampler(row("a")).choose(torch.zeros(0, 8), torch.zeros(0).long()).tokens.tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [5, 1024, 1500])
def test_the_likeliest_token_is_found_in_any_vocabulary(dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(size)
    logits = torch.randn(40, size).to(dtype)
    logits[0, size - 1] = logits[1, 0] = 9
    logits[2, size - 2] = torch.nan
    found = logits.gather(1, likeliest(logits)[:, None])[:, 0]
    assert torch.equal(found.nan_to_num(99), logits.amax(dim=-1).nan_to_num(99))
