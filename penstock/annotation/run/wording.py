"""Lengths of time as one says them. Knows nothing of runs."""

from __future__ import annotations

from penstock.annotation.records import Interval

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0  # seconds


def rough(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`: two digits, as no forecast knows more."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 1.5 * unit:
            count = seconds / unit
            return f"{count:.1f} {name}" if count < 10 and unit > MINUTE else f"{count:,.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"


def around(seconds: Interval) -> str:
    """`12 min (9 min to 15 min)`."""
    return f"{rough(seconds.middle)} ({rough(seconds.low)} to {rough(seconds.high)})"
