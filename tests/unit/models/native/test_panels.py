"""The product in panels: what it says, and when it is chosen."""

from __future__ import annotations

import ctypes
import time

import pytest
import torch
from torch import nn

from models.native import linear
from models.native.linear import BlasLinear, PackedLinear, lay_out
from models.native.norm import NativeNorm
from models.native.panels import Norm, PanelLinear
from models.native.timing import gain

NEAR = {torch.float32: 1e-5, torch.bfloat16: 4e-3}  #: of the largest number
DTYPES = list(NEAR)


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


def near(ours: torch.Tensor, exact: torch.Tensor) -> bool:
    far = (ours.double() - exact).abs().max()
    return bool(far <= NEAR[ours.dtype] * exact.abs().max())


@pytest.fixture(autouse=True)
def seeded(native: ctypes.CDLL) -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns, size", [(32, 16), (96, 208), (320, 512)])
@pytest.mark.parametrize("rows", [1, 2, 13, 14, 15, 29, 101, 300])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_it_equals_the_exact_product(
    dtype: torch.dtype, columns: int, size: int, rows: int, threads: int
) -> None:
    weight, x = draw(columns, size, dtype=dtype), draw(1, rows, size, dtype=dtype)
    torch.set_num_threads(threads)
    try:
        y = PanelLinear(weight, None)(x)
    finally:
        torch.set_num_threads(1)
    assert (y.shape, y.dtype) == ((1, rows, columns), dtype)
    assert near(y, x.double() @ weight.double().T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_sum_are_added_before_it_rounds(dtype: torch.dtype) -> None:
    weight, bias = draw(64, 48, dtype=dtype), draw(64, dtype=dtype)
    x, other = draw(17, 48, dtype=dtype), draw(17, 64, dtype=dtype)
    layer = PanelLinear(weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    assert near(layer(x), exact)
    assert near(layer.plus(x, other), exact + other.double())
    assert near(layer.plus(x, other.T.contiguous().T), exact + other.double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_gates_are_applied_before_it_rounds(dtype: torch.dtype, has_bias: bool) -> None:
    weight, bias = draw(96, 48, dtype=dtype) / 4, draw(96, dtype=dtype)
    x, other = draw(17, 48, dtype=dtype), draw(17, 48, dtype=dtype)
    layer = PanelLinear(weight, bias if has_bias else None, gated=True)
    gates, up = (x.double() @ weight.double().T + bias.double() * has_bias).chunk(2, dim=1)
    exact = nn.functional.silu(gates) * up
    assert layer(x).shape == (17, layer.out_features) == (17, 48)
    assert near(layer(x), exact)
    assert near(layer.plus(x, other), exact + other.double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 14, 33])
def test_a_norm_before_it_is_the_norm_and_then_it(
    native: ctypes.CDLL, dtype: torch.dtype, rows: int
) -> None:
    norm = NativeNorm(native, draw(80, dtype=dtype), 1e-6, 1.0)
    layer, x = PanelLinear(draw(64, 80, dtype=dtype), None), draw(1, rows, 80, dtype=dtype)
    assert torch.equal(norm.then(layer, x), layer(norm(x)))
    other = PackedLinear(draw(64, 80, dtype=dtype), None)
    assert torch.equal(norm.then(other, x), other(norm(x)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_row_depends_on_the_rows_beside_it(dtype: torch.dtype) -> None:
    layer, x = PanelLinear(draw(96, 80, dtype=dtype), None), draw(41, 80, dtype=dtype)
    together = layer(x)
    assert all(torch.equal(layer(x[n : n + 1]), together[n : n + 1]) for n in range(len(x)))
    assert torch.equal(layer(x[5:20]), together[5:20])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_in_its_row(dtype: torch.dtype) -> None:
    layer, x = PanelLinear(draw(32, 32, dtype=dtype), None), draw(20, 32, dtype=dtype)
    x[3, 4], x[7, 0] = torch.nan, torch.inf
    broken = (~layer(x).isfinite()).any(dim=1).nonzero()[:, 0]
    assert broken.tolist() == [3, 7]


def test_rows_that_lie_apart_and_none_at_all() -> None:
    weight, x = draw(32, 16, dtype=torch.float32), draw(9, 40, dtype=torch.float32)
    layer = PanelLinear(weight, None)
    assert near(layer(x[::2, 3:19]), x[::2, 3:19].double() @ weight.double().T)
    assert layer(x[:0, :16]).shape == (0, 32)


@pytest.mark.parametrize("shape", [(33, 16), (32, 17), (1030, 16)])
def test_a_weight_that_does_not_lie_in_panels_is_refused(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    with pytest.raises(RuntimeError, match="panels"):
        PanelLinear(torch.zeros(shape), None)
    with pytest.raises(RuntimeError, match="panels"):
        PanelLinear(torch.zeros(32, 32, dtype=torch.float64), None)
    of_one_like_it = 2.0
    monkeypatch.setattr(linear, "gain", lambda weight, ours, theirs, **more: of_one_like_it)
    assert isinstance(lay_out(torch.zeros(shape)), BlasLinear)


def test_what_it_is_not_made_for_is_refused() -> None:
    layer, x = PanelLinear(torch.zeros(32, 16), None), torch.zeros(3, 16)
    with pytest.raises(RuntimeError, match="bfloat16"):
        layer(x.bfloat16())
    with pytest.raises(RuntimeError, match="was given"):
        layer(torch.zeros(3, 17))
    with pytest.raises(RuntimeError, match="sum"):
        layer.plus(x, torch.zeros(2, 32))
    for weight in (torch.ones(8), torch.ones(16).bfloat16()):
        with pytest.raises(RuntimeError, match="norm"):
            layer.normed(x, Norm(weight, 1e-6, 0.0))


@pytest.mark.parametrize("times, chosen", [(0.94, PackedLinear), (0.96, PanelLinear)])
def test_a_product_in_panels_is_chosen_unless_it_is_slower(
    monkeypatch: pytest.MonkeyPatch, times: float, chosen: type
) -> None:
    monkeypatch.setattr(
        linear, "gain", lambda weight, ours, theirs, **more: times if ours is PanelLinear else 0.0
    )
    assert type(lay_out(torch.zeros(32, 32))) is chosen


def test_a_size_is_timed_once_by_one_thread() -> None:
    weight, threads = torch.zeros(64, 64), torch.get_num_threads()
    once = gain(weight, PanelLinear, PackedLinear)
    assert torch.get_num_threads() == threads
    assert once == gain(torch.ones(64, 64), PanelLinear, PackedLinear) > 0


@pytest.mark.parametrize("new_sizes, times", [(True, 1.1), (False, 2.0)])
def test_what_a_new_size_costs_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch, new_sizes: bool, times: float
) -> None:
    """A new size takes nine seconds a row, a known one a second, or two; when somebody else takes
    the CPU, longer."""
    now = 0.0

    class Timed(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds, self.known, self.calls = seconds, set[int](), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal now
            assert torch.get_num_threads() == 1
            rows = x.shape[1]
            seconds = self.seconds if rows in self.known else 9
            self.calls += 1
            now += rows * (seconds * (5 if 8 < self.calls < 30 else 1))
            self.known.add(rows)
            return x

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    measured = gain(
        torch.zeros(96, 96), lambda w, b: Timed(1), lambda w, b: Timed(2), new_sizes=new_sizes
    )
    assert measured == pytest.approx(times)
