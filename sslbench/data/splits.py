"""Named case lists and label budgets: files with hashes, checked for overlap before anything uses them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sslbench import registry
from sslbench.errors import UnknownNameError, UsageError

LEAKING = "-leaking"


@dataclass(frozen=True)
class Budget:
    """A label budget: which entries of the training list are labelled.

    Attributes:
        slug: its name in folders and digests (`20pct`, `3-patients`).
        title: its name for people (`20%`, `3 patients`).
        labeled: entries of `Splits.train`, in published order.
        aliases: other spellings; `20%`, `3 volumes` and the slug itself are understood anyway.
    """

    slug: str
    title: str
    labeled: tuple[str, ...]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """The case lists of one published split.

    Attributes:
        dataset, name: whose, and which (`synapse`, `ga`).
        unit: what an entry names, for people (`scan`, `patient`); a patient's cases stay together.
        train, val, test: entries, disjoint; `val` may be empty.
        budgets: label budgets by slug.
        source: where the lists were published.
        leaks: how training reaches validation or test in lists that are known for it, in one line; else empty. Such
            lists end their name in `-leaking`: nobody gets them without asking, and every caption names them.
        refused: budgets that go by this split's name elsewhere, by slug, and why they are not offered.
    """

    dataset: str
    name: str
    unit: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    budgets: dict[str, Budget]
    source: str = ""
    leaks: str = ""
    refused: dict[str, str] = field(default_factory=dict)

    def budget(self, text: str) -> Budget:
        """The budget that a slug, title or alias means.

        Raises:
            UnknownNameError: the split has no such budget.
            UsageError: it has one of `refused`.
        """
        wanted = slug_of(text)
        for budget in self.budgets.values():
            if wanted in {slug_of(name) for name in (budget.slug, budget.title, *budget.aliases)}:
                return budget
        known = [budget.title for budget in self.budgets.values()]
        if wanted in self.refused:
            message = f"label budget '{text}' of {self.dataset} (splits {self.name}) is refused: {self.refused[wanted]}"
            raise UsageError(message, f"known: {', '.join(known)}")
        raise UnknownNameError(f"label budget of {self.dataset} (splits {self.name})", str(text), known)

    def fingerprint(self, labeled: str) -> str:
        """Hash of the lists that decide a job: train, val, test and the budget's labelled entries."""
        lists = [self.train, self.val, self.test, self.budget(labeled).labeled]
        return hashlib.sha256(json.dumps(lists).encode()).hexdigest()


def slug_of(text: str) -> str:
    """The folder-safe form of a budget's name: `20%` → `20pct`, `3 patients` → `3-patients`."""
    text = re.sub(r"\s*%", "pct", str(text).strip().lower())
    text = re.sub(r"[\s_]+", "-", text)
    return re.sub(r"\.0+(?=pct|$)", "", text)


@lru_cache(maxsize=32)
def load_splits(dataset: str, name: str) -> Splits:
    """The named splits of a dataset, checked.

    Raises:
        UsageError: no such dataset or splits, or lists that overlap.
    """
    component = registry.component("dataset", dataset)
    owner = component.splits_from or component.name
    folder = Path(__file__).parent / "splits"
    path = folder / f"{owner}-{name}.yaml"
    if not path.exists():
        known = [found.stem.removeprefix(f"{owner}-") for found in folder.glob(f"{owner}-*.yaml")]
        raise UnknownNameError(f"splits of {dataset}", name, known)
    from sslbench.spelling import load_yaml

    return parse_splits(load_yaml(path), dataset, name)


def parse_splits(raw: dict[str, Any], dataset: str, name: str) -> Splits:
    """Splits from the content of a split file.

    Raises:
        UsageError: lists that overlap or repeat an entry, or a budget that names what is not in `train`.
    """
    where = f"splits {name} of {dataset}"
    lists = {part: tuple(str(entry) for entry in raw.get(part, [])) for part in ("train", "val", "test")}
    leaks = str(raw.get("leaks", ""))
    if bool(leaks) != name.endswith(LEAKING):
        raise UsageError(f"{where}: lists that are known to leak say how in `leaks`, and end their name in {LEAKING}")
    # Known leaks between the lists are let through by their name; an entry twice in one list never is.
    for group in [{part: entries} for part, entries in lists.items()] if leaks else [lists]:
        _disjoint(group, where)
    refused = {slug_of(slug): " ".join(str(why).split()) for slug, why in raw.get("refused", {}).items()}
    budgets = {}
    for slug, content in raw["budgets"].items():
        labeled = content.get("labeled", lists["train"][: content.get("prefix", 0)])
        labeled = tuple(str(entry) for entry in labeled)
        stray = [entry for entry in labeled if entry not in lists["train"]]
        if stray or not labeled or len(set(labeled)) < len(labeled):
            raise UsageError(f"{where}: budget {slug} is empty, repeats an entry, or names {stray[:3]} outside train")
        aliases = tuple(str(alias) for alias in content.get("aliases", []))
        budgets[slug] = Budget(slug, str(content.get("title", slug)), labeled, aliases)
    return Splits(
        dataset=dataset,
        name=name,
        unit=raw.get("unit", "case"),
        budgets=budgets,
        source=raw.get("source", ""),
        leaks=leaks,
        refused=refused,
        **lists,
    )


def _disjoint(lists: dict[str, tuple[str, ...]], where: str) -> None:
    seen: dict[str, str] = {}
    for part, entries in lists.items():
        for entry in entries:
            if entry in seen:
                raise UsageError(f"{where}: '{entry}' stands in {seen[entry]} and again in {part}")
            seen[entry] = part


def expand(entries: Iterable[str], groups: dict[str, list[str]]) -> list[str]:
    """Case ids of split entries: an entry is a case id, or a group (patient) that stands for all its cases.

    Args:
        entries: in list order.
        groups: group -> its case ids, sorted. Entries that are not there (a partly held dataset) are left out.
    """
    return [case for entry in entries for case in groups.get(entry, [])]
