"""The card of a prepared dataset: `README.md` in its folder, for whoever finds the folder without the command.

It is made from the records of the preparation alone, and says nothing of the machine or the time: the same preparation
with the same lists gives the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from sslbench.config.splits import expand, load_splits, split_files
from sslbench.config.text import counted
from sslbench.core.files import read_json, read_text, write_text
from sslbench.data.audit import percent
from sslbench.data.base import Preprocessing
from sslbench.data.store import Store, command

CARD = "README.md"
_SPACINGS = {
    "header": "from the files' headers",
    "published": "as published; the files have none",
    "unknown": "unknown, 1 mm is assumed",
}


def write_card(store: Store) -> Path:
    """Write the card of a prepared dataset, where it changes; its file."""
    path, text = store.folder / CARD, card_text(store)
    if not path.is_file() or read_text(path) != text:
        write_text(path, text)
    return path


def card_text(store: Store) -> str:
    """The card as Markdown: source, counts, shapes, spacings, classes, preprocessing, lists, licence, what to cite."""
    kind = store.dataset
    parts = [
        f"# {kind.title}",
        f"Prepared by sslbench for training: dataset `{kind.name}`, preprocessing `{store.preprocessing}`. "
        "`sslbench audit` reads and checks it; `dataset.json` has every case with the hashes of its files.",
        *_cases(store),
        *_classes(store),
        *_preprocessing(store),
        *_splits(store),
        *_credit(store),
        "## Made by",
        f"```bash\n{_made_by(store)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _cases(store: Store) -> Iterator[str]:
    cases, kind = list(store.cases.values()), store.dataset
    index = read_json(store.folder / "dataset.json")
    failed = sorted(index.get("failed", ())) if isinstance(index, dict) else []
    labeled = sum(case.labeled for case in cases)
    axes = kind.preprocessings[store.preprocessing].axes
    subset = f", a subset of the {store.official} of the release" if store.is_subset else ""
    yield "## Cases"
    yield _table(
        ("what", "value"),
        [
            ("made from", store.form.title),
            ("cases", f"{len(cases)}{subset}; {labeled} with a label"),
            ("patients", len({case.group for case in cases})),
            ("modality", ", ".join(sorted({kind.modality_of(case.id).upper() for case in cases}))),
            ("channels", ", ".join(kind.channels)),
            (f"stored shape ({axes})", _range([case.shape for case in cases])),
            (f"stored voxel size, mm ({axes})", _range([case.spacing_mm for case in cases])),
            ("voxel sizes", _SPACINGS[store.spacing]),
            ("SHA-256 of all images and labels", f"`{store.fingerprint}`"),
        ],
    )
    if failed:
        yield f"Left out, with the reasons in `dataset.json`: {', '.join(failed)}."


def _classes(store: Store) -> Iterator[str]:
    counts = np.array([case.class_voxels for case in store.cases.values() if case.labeled])
    if not len(counts):
        return
    names = [("background", ""), *((info.name, info.short) for info in store.dataset.classes)]
    shares, held = counts.sum(0) / counts.sum(), (counts > 0).sum(0)
    yield "## Classes"
    yield f"Shares of the voxels of all {counted(len(counts), 'reference')}, as the scans have them."
    rows = [(label, *name, percent(float(shares[label])), int(held[label])) for label, name in enumerate(names)]
    yield _table(("label", "class", "short", "share", "cases with it"), rows)


def _preprocessing(store: Store) -> Iterator[str]:
    made = store.dataset.preprocessings[store.preprocessing]
    yield "## Preprocessing"
    told = f"`{store.preprocessing}`, hash `{store.dataset.preprocessing_hash(store.preprocessing)}`"
    yield f"{told}: {made.description}" if made.description else f"{told}."
    rows = [(f"`{name}`", f"`{json.dumps(value)}`") for name, value in _changed(made)]
    rows += [(f"option `{name}`", f"`{json.dumps(value)}`") for name, value in store.options.items()]
    yield _table(("field", "value"), rows)
    if store.form.done:
        yield f"Done already in what it was made from: {', '.join(store.form.done)}."


def _changed(made: Preprocessing) -> Iterator[tuple[str, Any]]:
    """The fields of a preprocessing that are not at their defaults, JSON-able."""
    for each in fields(made):
        value = getattr(made, each.name)
        if each.name != "description" and (each.default is MISSING or value != each.default):
            yield each.name, vars(value) if hasattr(value, "__dict__") else value


def _splits(store: Store) -> Iterator[str]:
    groups = store.groups()
    rows: list[Sequence[object]] = []
    notes = []
    for name in split_files(store.dataset.name):
        lists = load_splits(store.dataset.name, name)
        sizes = "/".join(f"{len(part)}" for part in (lists.train, lists.val, lists.test))
        for budget in lists.budgets.values():
            cases = len(expand(budget.labeled, groups))
            held = f"{counted(len(budget.labeled), lists.unit)}, {counted(cases, 'case')} here"
            rows.append((f"`{name}`", sizes, budget.title, held, f"`{lists.fingerprint(budget.slug)[:16]}`"))
        notes += [f"- `{name}`: {' '.join(told.split())}" for told in (lists.source, lists.leaks) if told]
    yield "## Case lists and label budgets"
    if not rows:
        yield "None."
        return
    yield _table(("lists", "train/val/test", "budget", "labelled", "hash of the lists"), rows)
    if notes:
        yield "\n".join(notes)


def _credit(store: Store) -> Iterator[str]:
    kind = store.dataset
    yield "## Licence and credit"
    if kind.generated_ids:
        yield "Generated: nobody's patients, and nothing to ask for."
        yield "To cite: sslbench, by its `CITATION.cff`."
    else:
        terms = f"licence {kind.remote.licence}" if kind.remote else "the terms that whoever got the files agreed to"
        yield f"The data are their makers'; this folder holds them in another form. What holds for them: {terms}."
        yield f"To cite: {kind.cite or 'what the source of the data asks for.'} And sslbench, by its `CITATION.cff`."
    if kind.access:
        yield "\n".join(f"{number}. {step}" for number, step in enumerate(kind.access, 1))


def _made_by(store: Store) -> str:
    """The command, with FOLDER in place of a source: where that lay is nobody's business."""
    line = command(store.dataset, store.preprocessing)
    usual = store.dataset.Options().model_dump(mode="json")
    changed = [f"{name}={json.dumps(value)}" for name, value in store.options.items() if value != usual.get(name)]
    return " ".join([line, *(f"--set {shlex.quote(each)}" for each in changed)])


def _range(sizes: Sequence[Sequence[float]]) -> str:
    """The sizes of all cases, by axis, in one expression."""
    if len({len(each) for each in sizes}) > 1:
        return "of several dimensions"
    low, high = np.min(np.array(sizes), axis=0), np.max(np.array(sizes), axis=0)
    spans = [f"{a:.5g}" if a == b else f"{a:.5g} to {b:.5g}" for a, b in zip(low, high, strict=True)]
    return " × ".join(spans)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)
