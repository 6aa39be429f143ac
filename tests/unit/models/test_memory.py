"""Sizes are derived from the memory that is free, and leave room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.host import available_memory
from models.packed.memory import Shape, Sizes, Wishes, derive, reserve
from models.packed.store import LayerShape
from penstock.errors import ModelError

GIB = 2**30
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
#: Llama 2 7B in bf16: half a megabyte a token.
SEVEN = Shape([LayerShape(32, 128, 128, torch.bfloat16)] * 32, 4096, 32_000, 11_008)
TINY = Shape([LayerShape(2, 16, 16, torch.float32)] * 2, 128, 160, 256)


def test_a_gpu_with_room_gets_all_rows_and_an_arena_within_its_share() -> None:
    sizes = derive(SEVEN, Wishes(), CUDA, 64 * GIB)
    assert SEVEN.bytes_per_token == 2**19
    assert (sizes.max_rows, sizes.longest) == (128, 4096)
    room = 64 * GIB - reserve(SEVEN, 136)
    assert 0.84 * room < sizes.kv_bytes <= 0.85 * room
    assert sizes.kv_bytes == sizes.kv_tokens * 2**19


def test_short_memory_means_fewer_rows_and_shorter_ones() -> None:
    sizes = derive(SEVEN, Wishes(), CUDA, 2 * GIB)
    assert sizes.max_rows == sizes.kv_tokens // 128 < 128
    assert sizes.longest == sizes.kv_tokens < 4096


def test_the_arena_is_never_larger_than_all_rows_can_fill() -> None:
    sizes = derive(TINY, Wishes(express_rows=6), CPU, 64 * GIB)
    assert (sizes.kv_tokens, sizes.max_rows, sizes.longest) == (134 * 128, 128, 128)


def test_on_the_cpu_half_of_the_free_memory_is_left() -> None:
    sizes = derive(SEVEN, Wishes(), CPU, 32 * GIB)
    assert sizes.max_rows == 128
    assert 15 * GIB < sizes.kv_bytes <= 16 * GIB


def test_wishes_are_followed() -> None:
    wishes = Wishes(kv_tokens=1000, max_rows=3, express_rows=1)
    assert derive(SEVEN, wishes, CPU, 16 * GIB) == Sizes(1000, 1000 * 2**19, 3, 1000)
    half = derive(SEVEN, Wishes(kv_share=0.25), CPU, 16 * GIB)
    assert 3 * GIB < half.kv_bytes <= 4 * GIB


@pytest.mark.parametrize(
    ("wishes", "free", "says"),
    [
        (Wishes(), GIB // 4, "one row needs 256"),
        (Wishes(kv_tokens=10**6), 16 * GIB, "1,000,000 tokens take 488.3 GiB"),
        (Wishes(kv_tokens=100), 16 * GIB, "100 tokens"),
        (Wishes(), 0, "0 tokens"),
    ],
)
def test_too_little_is_one_sentence_with_numbers(wishes: Wishes, free: int, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        derive(SEVEN, wishes, CPU, free)


def test_sizes_are_told_in_words() -> None:
    words = str(derive(TINY, Wishes(), CPU, GIB))
    assert "128 rows" in words
    assert "17,408 tokens in 8.5 MiB" in words


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    files = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000 kB\n", **files}
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_limits_the_machine_s_available_memory_counts(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, "0::/\n", {})) == 8000 * 1024
    assert available_memory() > 0


def test_the_limit_of_a_group_above_counts_and_cached_files_are_free(tmp_path: Path) -> None:
    above, own = "sys/fs/cgroup/pods", "sys/fs/cgroup/pods/own"
    files = {
        f"{above}/memory.max": "5000\n",
        f"{above}/memory.current": "3000\n",
        f"{above}/memory.stat": "anon 7\ninactive_file 500\n",
        f"{own}/memory.max": "max\n",
        f"{own}/memory.current": "10\n",
        f"{own}/memory.stat": "",
    }
    assert available_memory(machine(tmp_path, "0::/pods/own\n", files)) == 2500


def test_the_older_kind_of_group_counts_too(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory"
    files = {
        f"{base}/memory.limit_in_bytes": "4000",
        f"{base}/memory.usage_in_bytes": "3000",
        f"{base}/memory.stat": "total_inactive_file 100",
    }
    groups = "9:cpu:/\n4:memory:/of/the/host\n"
    assert available_memory(machine(tmp_path, groups, files)) == 1100
