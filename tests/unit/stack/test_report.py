"""What `up` tells about work that its model will not do."""

from __future__ import annotations

from penstock.stack.report import waiting_for_others

QUEUE = [
    {"model": "served", "lane": "bulk", "open_requests": 5},
    {"model": "earlier", "lane": "bulk", "open_requests": 700},
    {"model": "earlier", "lane": "express", "open_requests": 8},
    {"model": "done", "lane": "bulk", "open_requests": 0},
]


def test_prompts_for_another_model_are_counted_by_model() -> None:
    assert waiting_for_others(QUEUE, "served") == {"earlier": 708}


def test_an_answer_without_a_queue_counts_nothing() -> None:
    assert waiting_for_others(None, "served") == {}
