"""What a worker takes of its machine, by clocks that the test winds."""

from __future__ import annotations

from collections.abc import Callable

from models.energy import Counter, Energy
from workers.usage import Usage, gpu_memory, peak_memory


def seconds(*values: float) -> Callable[[], float]:
    return iter(values).__next__


def test_a_worker_says_how_busy_it_was_since_the_last_look_and_what_its_gpu_holds() -> None:
    used = iter([7, None])
    joules = iter([{"gpu": Counter(5.0, 100.0)}, {"gpu": Counter(7.5, 100.0)}])
    usage = Usage(
        "cuda:0",
        memory=lambda _: next(used),
        peak=lambda _: 9,
        energy=Energy(joules.__next__),
        clock=seconds(10, 15, 20),
        busy=seconds(1, 8.5, 9),
    )

    assert usage.stats() == {}
    usage.look()
    since = {"peak_memory": 9, "energy": 0.0}
    assert usage.stats() == {"cpu_usage_percent": 150.0, "gpu_memory_usage_bytes": 7, **since}
    usage.look()
    assert usage.stats() == {"cpu_usage_percent": 10.0, "peak_memory": 9, "energy": 2.5}


def test_without_a_gpu_there_is_none_to_ask() -> None:
    assert gpu_memory("cpu") is None
    assert peak_memory("cpu") > 1_000_000
