"""Numbers as they are read: shares, times, sizes. Knows nothing of annotations."""

from __future__ import annotations

from penstock.annotation.records import Interval

MINUTE, HOUR = 60, 3_600  # seconds
JOULES_PER_WATT_HOUR = 3_600
DASH = "\N{EN DASH}"  # between bounds, and for what there is not


def many(count: float) -> str:
    return f"{count:,.0f}"


def share(part: float, digits: int = 1) -> str:
    """`0.1234` as `12.3%`; what is not quite none or all does not say so."""
    low = 0.1**digits / 2
    if 0 < part * 100 < low:
        return f"<{2 * low:g}%"
    if 1 > part > 1 - low / 100:
        return f">{100 - 2 * low:g}%"
    return f"{part:.{digits}%}"


def percent(part: float) -> str:
    return share(part, 0)


def of(part: int, whole: int) -> str:
    return share(part / whole) if whole else DASH


def between(interval: Interval) -> str:
    """The bounds alone: `81.6` to `91.0%`."""
    return f"{interval.low * 100:.1f}{DASH}{interval.high * 100:.1f}%"


def decimal(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def rate(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`4350` as `1 h 12 min`."""
    whole = round(seconds)
    if whole >= HOUR:
        return f"{whole // HOUR:,} h {whole % HOUR // MINUTE} min"
    if whole >= MINUTE:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1_000:.3g} ms"


def size(count: int) -> str:
    """Bytes."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1_024:
            return f"{amount:.3g} {unit}" if amount < 1_000 else f"{amount:.0f} {unit}"
        amount /= 1_024
    return f"{amount:,.1f} GiB"


def energy(joules: float) -> str:
    hours = joules / JOULES_PER_WATT_HOUR
    if hours >= 1_000:
        return f"{hours / 1_000:,.2f} kWh"
    return f"{hours:.3g} Wh" if hours >= 1 else f"{joules:,.0f} J"


def plural(count: int, name: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"
