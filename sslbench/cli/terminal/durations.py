"""Times for people: to the second in a column, rounded in a sentence."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds in a column: `42 s`, `3:05 min`, `2:10 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return (
        f"{int(minutes)}:{int(seconds % 60):02d} min"
        if minutes < 100
        else f"{int(minutes // 60)}:{int(minutes % 60):02d} h"
    )


def about(seconds: float) -> str:
    """Seconds in a sentence, as finely as an estimate means it: `40 s`, `35 min`, `3 h 10 min`, `50 h`, `12 days`."""
    if seconds < 90:
        return f"{5 * max(round(seconds / 5), 1)} s"
    if round(seconds / 60) < 100:
        return f"{round(seconds / 60)} min"
    hours, tens = divmod(round(seconds / 600), 6)
    if hours < 24:
        return f"{hours} h {10 * tens} min" if tens else f"{hours} h"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 100 else f"{round(seconds / 86400)} days"
