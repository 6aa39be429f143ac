"""What `up` tells about its engine, and about work that its model will not do."""

from __future__ import annotations

from penstock.stack.report import engine_rows, waiting_for_others

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


def test_the_engine_is_told_with_its_rows_its_memory_and_its_reasons() -> None:
    model = {
        "runner": "packed",
        "max_rows": 64,
        "express_rows": 8,
        "context": 2048,
        "kv_tokens": 131_072,
        "kv_bytes": 1_200_000_000,
        "notes": ["bf16 is faster here"],
    }

    assert engine_rows(model) == [
        (
            "Engine",
            "packed, 64 rows and 8 for chats, of 2,048 tokens at most, "
            "K/V of 131,072 tokens (1,200 MB)",
        ),
        ("", "bf16 is faster here"),
    ]


def test_a_padded_engine_has_no_memory_to_tell_of() -> None:
    model = {"runner": "padded", "max_rows": 64, "express_rows": 8, "kv_tokens": 0, "notes": []}

    assert engine_rows(model) == [("Engine", "padded, 64 rows and 8 for chats")]
    assert engine_rows({}) == []
