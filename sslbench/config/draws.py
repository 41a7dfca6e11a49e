"""Label budgets drawn again: `20%#3`, in folders `20pct-draw-3`, labels as many training cases as `20%`, others.

Draw k puts the training patients whose labels are known in the order of the SHA-256 of `draw <k>/<patient>`, and labels
the first of them, whole: so many that they hold as many entries as the budget. Nothing but names and k decides it, no
platform and no generator of random numbers; of one draw, smaller budgets lie inside larger ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

FAMILY = "-draws"  # behind a budget's name: all its draws together, as one row of a table
HELD = "-held"  # behind a budget's name: what is held of it, where some of its cases are missing
MOST = 1000  # draws of one budget
_DRAWN = re.compile(rf"(?P<base>.+?)(?:,?-draw-|-?#)(?P<draw>[1-9]\d{{0,3}})(?P<held>{HELD})?")


@lru_cache(maxsize=4096)
def split_draw(slug: str) -> tuple[str, int]:
    """The budget of a slug and its number of a draw: `20pct-draw-3` or `20pct#3` → (`20pct`, 3); no draw is 0."""
    found = _DRAWN.fullmatch(slug)
    return (found["base"] + (found["held"] or ""), int(found["draw"])) if found else (slug, 0)


def drawn_slug(slug: str, draw: int) -> str:
    """The slug of a draw of a budget."""
    base = slug.removesuffix(HELD)
    return f"{base}-draw-{draw}{slug[len(base) :]}"


def undrawn(slug: str) -> str:
    """The slug of the budget that a draw is of, in full: `20pct-draw-3-held` → `20pct`; any other stays."""
    return split_draw(slug)[0].removesuffix(HELD)


def family_of(slug: str) -> str:
    """What all draws of a budget share: `20pct-draw-3` → `20pct-draws`; a published budget is its own family."""
    base, draw = split_draw(slug)
    return base + FAMILY if draw else slug


def replicate_of(labeled: str, seed: int) -> int:
    """What a run repeats: of drawn labels the draw, within which seeds are averaged; else the seed."""
    return split_draw(labeled)[1] or seed


def labels_of_draw(
    entries: Sequence[str], patient_of: Callable[[str], str], draw: int, size: int, by_patient: bool = False
) -> tuple[str, ...]:
    """Entries that a draw labels, in its order; a patient's stay together.

    Args:
        entries: those that may be labelled.
        patient_of: the patient of an entry.
        draw: from 1.
        size: how many entries to label at least, or patients with `by_patient`.
    """
    members: dict[str, list[str]] = {}
    for entry in entries:
        members.setdefault(patient_of(entry), []).append(entry)
    chosen: list[str] = []
    for number, patient in enumerate(in_drawn_order(members, f"draw {draw}")):
        if (number if by_patient else len(chosen)) >= size:
            break
        chosen += members[patient]
    return tuple(chosen)


def in_drawn_order(patients: Iterable[str], seed: int | str) -> list[str]:
    """Patients in the order of the SHA-256 of `<seed>/<patient>`."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())


def budget_names(value: Any, numbers: Callable[[Any], list[Any]]) -> list[str]:
    """The budgets that an axis value stands for: `{share: 20%, draws: 5}` and `20%#1-5` are five.

    Args:
        value: a budget, a mapping of a size (`share: 20%`, `patients: 7`) and `draws`: how many, or which.
        numbers: expands `1-5`.

    Raises:
        ValueError: a mapping of another kind, or no number of a draw.
    """
    if not isinstance(value, Mapping):
        base, mark, listed = str(value).rpartition("#")
        found = numbers(listed) if mark and base else []
        return [f"{base}#{draw}" for draw in found] if len(found) > 1 else [str(value)]
    sizes = [key for key in value if key != "draws"]
    if "draws" not in value or len(sizes) != 1 or not re.fullmatch(r"[a-z]+", str(sizes[0])):
        raise ValueError(f"a budget is its name, or {{share: 20%, draws: 5}}, or {{patients: 7, draws: 5}}: {value}")
    (size,), asked = sizes, value["draws"]
    base = f"{value[size]}" if size == "share" else f"{value[size]} {size}"
    if size == "share" and "%" not in base:
        raise ValueError(f"a share of the training cases is written 20%, not {base}")
    items = asked if isinstance(asked, list) else [*range(1, 1 + asked)] if isinstance(asked, int) else [asked]
    draws = [draw for item in items for draw in numbers(item)]
    if not draws or asked is True or any(not isinstance(draw, int) or not 0 < draw <= MOST for draw in draws):
        raise ValueError(f"`draws` is how many, or which: 5, 1-5 or [1, 3], not {asked!r}")
    return [f"{base}#{draw}" for draw in draws]


def first_of(labeled: str) -> str:
    """A budget that jobs can have, for one that stands for all draws: its first; any other stays."""
    return drawn_slug(labeled.removesuffix(FAMILY), 1) if labeled.endswith(FAMILY) else labeled
