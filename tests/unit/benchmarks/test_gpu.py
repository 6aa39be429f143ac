"""The program for CUDA machines, tried on a tiny shape on the CPU."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import Roofline, main


@pytest.mark.parametrize("dtype", ["bf16", "nf4"])
def test_every_contender_brings_the_tokens_that_were_asked_for(
    dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(dtype=dtype, limits="4", prompts=6, rounds=1, tiny=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5
    for line in lines:
        assert line["tokens_per_s"] > 0, line
        assert line["roofline_tokens_per_s"] > 0


def test_the_roofline_is_what_memory_allows() -> None:
    roof = Roofline(weight_bytes=1_000, bytes_per_token=2, bandwidth=2_000.0)
    assert roof.tokens_per_s(1, 0) == 2.0  # all weights for one token
    assert roof.tokens_per_s(10, 50) == 10.0  # as much again for keys and values
