"""The facts of `sslbench show` about one name: its options, where they come from, and what is known to be different.

A component describes itself in its docstring, in plain paragraphs. The first says what it is, with the paper in
brackets. One that begins with `Deviations:` tells where it leaves the paper or its code on purpose. `Cost:`, to the
end of its paragraph, says what a step costs. Sections for callers (`Args:`, `Attributes:`, ...) are not shown.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sslbench.cli.listing import PLURALS, spelling_of
from sslbench.config import weightings
from sslbench.config.fields import fields_of
from sslbench.config.layers import JOB_PARTS, load_recipe, read_recipe
from sslbench.config.recipe import ABOUT, recipe_path
from sslbench.config.text import flatten, load_yaml
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError

SHOW_KINDS = (*registry.KINDS, "recipe")

# A network's parameters are counted for one input channel and these classes: Synapse's and ACDC's.
COUNTED_CLASSES = (14, 4)

_CALLERS = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Examples?):")
_DEVIATIONS = re.compile(r"(?:known\s+)?deviations?(?:\s+(?:from|of|to)\b[^:.]*)?:\s*", re.IGNORECASE)
_COST = re.compile(r"(?:^|(?<=[.;:)]\s))Cost:\s*", re.MULTILINE)
_PAPER = re.compile(r"\(([^()]*\b(?:19|20)\d\d\b[^()]*)\)")


@dataclass(frozen=True)
class Doc:
    """A docstring, read.

    Attributes:
        about: paragraphs, each on one line.
        cost: of a step; empty where it is not said.
        deviations: one entry per paragraph or list item.
        paper: what stands in brackets with a year, first match; empty where nothing does.
    """

    about: tuple[str, ...] = ()
    cost: str = ""
    deviations: tuple[str, ...] = ()
    paper: str = ""


def describe(kind: str, name: str) -> dict[str, Any]:
    """All that is known of a name before anything runs, ready for JSON: always `kind`, `name`, `aliases`, `about`.

    Args:
        kind: one of `SHOW_KINDS`; the plurals that `list` takes are understood.
        name: as registered, an alias or a preset; a recipe may be a YAML file.

    Raises:
        UnknownNameError: no such kind or name; near names are suggested.
    """
    kind = {**PLURALS, "recipes": "recipe"}.get(kind, kind)
    if kind not in SHOW_KINDS:
        raise UnknownNameError("kind of thing to show", kind, SHOW_KINDS)
    if kind == "recipe":
        return _recipe(name)
    entry = registry.get(kind, name)
    base = registry.get(kind, entry.preset_of) if entry.preset_of else entry
    details = {"network": _network, "dataset": _dataset, "protocol": _protocol, "method": _method}.get(kind, _pluggable)
    return {
        "kind": kind,
        "name": base.name,
        "aliases": list(base.aliases),
        **details(base, entry),
    }


def read_doc(text: str | None) -> Doc:
    """The parts of a docstring that a user of the component wants."""
    about: list[str] = []
    deviations: list[str] = []
    costs: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        if not paragraph or _CALLERS.match(paragraph):
            continue
        if start := _DEVIATIONS.match(paragraph):
            deviations += _items(paragraph[start.end() :])
            continue
        said, *cost = _COST.split(paragraph, maxsplit=1)
        about += [_line(said)] if said.strip() else []
        costs += [_line(part) for part in cost]
    papers = [match[1] for paragraph in about if (match := _PAPER.search(paragraph))]
    return Doc(tuple(about), " ".join(costs), tuple(deviations), papers[0] if papers else "")


def _items(text: str) -> list[str]:
    """The items of a plain list (`- ...`), or the text as one item."""
    return [_line(item) for item in re.split(r"(?:^|\n)\s*- ", text) if item.strip()]


def _line(text: str) -> str:
    return " ".join(text.split())


def _documented(kind: str, target: Any) -> Doc:
    """The docstring of a class; the paper may stand in that of a module that holds this component alone."""
    doc = read_doc(target.__doc__)
    if doc.paper:
        return doc
    housemates = [entry for entry in registry.entries(kind) if _module(entry.target) == _module(target)]
    module = inspect.getmodule(target)
    paper = read_doc(module.__doc__).paper if module and len(housemates) == 1 else ""
    return Doc(doc.about, doc.cost, doc.deviations, paper)


def _module(target: Any) -> str | None:
    return getattr(target, "__module__", None)


# ---------------------------------------------------------------------------------------------------- components


def _pluggable(base: registry.Entry, asked: registry.Entry) -> dict[str, Any]:
    """Collect the facts that losses, plugins, weightings and methods have in common."""
    target, doc, own = base.target, _documented(base.kind, base.target), read_doc(asked.about)
    facts: dict[str, Any] = {
        "title": asked.title or getattr(target, "title", ""),
        "version": registry.own_version(target),
        "about": [*own.about, *doc.about],
        "paper": own.paper or doc.paper,
        "cost": doc.cost,
        "deviations": list(doc.deviations),
        "options": _options(target, asked.set),
        "preset": asked.name if asked.preset_of else None,
        "presets": _presets(base),
    }
    if base.kind in ("loss", "weighting"):
        facts["needs_reference"] = bool(target.needs_reference)
    if base.kind == "weighting":
        facts["changes"] = list(target.changes)
    return facts


def _presets(base: registry.Entry) -> list[dict[str, Any]]:
    found = sorted(registry.presets(base.kind, base.name), key=lambda preset: preset.name)
    return [
        {"name": preset.name, "aliases": list(preset.aliases), "means": spelling_of(preset), "set": dict(preset.set)}
        for preset in found
    ]


def _options(target: Any, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of a component's options; `value` is what a preset makes of the default."""
    model = getattr(target, "Options", None)
    rows = list(fields_of(model)) if model is not None else []
    return [{**row, "value": chosen.get(row["name"], row["default"])} for row in rows]


def _method(base: registry.Entry, asked: registry.Entry) -> dict[str, Any]:
    kind = base.target
    facts = _pluggable(base, asked)
    learners = weightings.learners_of(kind, weightings.split(asked.set)[0])
    weighted = {key: spec["name"] for key, spec in weightings.completed(asked.set, learners).items()}
    for name in dict.fromkeys(weighted.values()):
        told = _documented("weighting", registry.component("weighting", name)).deviations
        facts["deviations"] += [f"{name}: {deviation}" for deviation in told]
    return {
        **facts,
        "group": asked.group or kind.group,
        "caution": kind.caution,
        "predictors": list(kind.predictors),
        "learners": list(learners),
        "weightings": weighted,
        "views": {stream: list(views) for stream, views in kind.views.items()},
        "phases": _phases(kind, asked.set),
        "defaults": dict(kind.defaults),
        "term_kinds": list(kind.term_kinds),
        "unlabeled_weight": kind.unlabeled_weight,
        "teachers": [asdict(average) for average in _unbuilt(kind, asked.set, lambda method: method.averages()) or ()],
        "check_exemptions": dict(kind.check_exemptions),
    }


def _phases(kind: Any, chosen: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The phases of a method with what a step of each costs, with losses that need no reference and such that do, in
    multiples of the labelled and unlabelled patches of a step; None where they depend on the data."""

    def cost(method: Any, phase: Any, needs_reference: bool) -> dict[str, Any] | None:
        method.loss = SimpleNamespace(needs_reference=needs_reference)
        found = method.step_cost(phase)
        return None if found is None else asdict(found)

    def read(method: Any) -> list[dict[str, Any]]:
        return [
            {
                **asdict(phase),
                "streams": list(phase.streams),
                "step_cost": cost(method, phase, False),
                "step_cost_with_reference": cost(method, phase, True),
            }
            for phase in method.phases()
        ]

    found: list[dict[str, Any]] | None = _unbuilt(kind, chosen, read)
    return found


def _unbuilt(kind: Any, chosen: Mapping[str, Any], read: Callable[[Any], Any]) -> Any:
    """Read a method under its options, without building its networks; None where that takes more."""
    from torch import nn

    method = kind.__new__(kind)
    nn.Module.__init__(method)
    try:
        method.options = kind.Options(**weightings.split(chosen)[0])
        return read(method)
    except Exception:  # it asks for what only a job has, or for an option without a default
        return None


def _network(base: registry.Entry, asked: registry.Entry) -> dict[str, Any]:
    target = base.target
    facts = {**_pluggable(base, asked), "divisor": target.divisor_of({}), "parameters": [], "missing": ""}
    try:
        facts["parameters"] = [{"channels": 1, "classes": C, "count": _count(base.name, C)} for C in COUNTED_CLASSES]
    except UsageError as error:  # it needs a package that is not there
        facts["missing"] = error.message
    return facts


def _count(name: str, num_classes: int) -> int:
    from sslbench.networks import build_network

    return sum(parameter.numel() for parameter in build_network(name, 1, num_classes).parameters())


def _dataset(base: registry.Entry, asked: registry.Entry) -> dict[str, Any]:
    kind = base.target
    doc = _documented("dataset", kind)
    return {
        "title": getattr(kind, "title", kind.name),
        "version": registry.own_version(kind),
        "about": list(doc.about),
        "paper": doc.paper,
        "official_cases": kind.official_cases,
        "source": kind.source_hint,
        "access": list(kind.access),
        "remote": asdict(kind.remote) if kind.remote else None,
        "forms": [asdict(form) | {"spacing": form.spacing} for form in kind.forms],
        "classes": [{"label": 0, "name": "background", "short": ""}]
        + [{"label": number, **asdict(info)} for number, info in enumerate(kind.classes, 1)],
        "preprocessings": [
            {"name": name, "default": number == 0, "hash": made.hash, **asdict(made)}
            for number, (name, made) in enumerate(kind.preprocessings.items())
        ],
        "splits": [_splits(base.name, name) for name in split_names(base.name)],
        "default_grid": kind.default_grid,
        "options": _options(kind, {}),
    }


def split_names(dataset: str) -> list[str]:
    """The named splits of a dataset, sorted."""
    from sslbench.config.splits import split_files

    return list(split_files(dataset))


def _splits(dataset: str, name: str) -> dict[str, Any]:
    from sslbench.config.splits import load_splits

    lists = load_splits(dataset, name)
    return {
        "name": name,
        "unit": lists.unit,
        "train": len(lists.train),
        "validation": len(lists.val),
        "test": len(lists.test),
        "source": lists.source,
        "leaks": lists.leaks,
        "budgets": budgets(dataset, name),
    }


def budgets(dataset: str, splits: str) -> list[dict[str, Any]]:
    """The label budgets of a split: `slug`, `title`, `aliases`, and how many entries are `labeled`."""
    from sslbench.config.splits import load_splits

    return [
        {
            "slug": budget.slug,
            "title": budget.title,
            "aliases": list(budget.aliases),
            "labeled": len(budget.labeled),
        }
        for budget in load_splits(dataset, splits).budgets.values()
    ]


def _protocol(base: registry.Entry, asked: registry.Entry) -> dict[str, Any]:
    protocol = base.target
    return {
        "about": [protocol.description],
        "caption": protocol.caption(),
        "fields": {name: value for name, value in asdict(protocol).items() if name not in ("name", "description")},
    }


# ------------------------------------------------------------------------------------------------------- recipes


def _recipe(name: str) -> dict[str, Any]:
    recipe = load_recipe(name)
    layers, overrides, _ = read_recipe(name)
    options = registry.component("network", recipe.network.name).Options
    # Options that the recipe does not write down are part of what it holds fixed: they follow the network's name.
    defaults = {f"network.{row['name']}": row["default"] for row in fields_of(options)}
    values = flatten(recipe.model_dump(mode="json", exclude=ABOUT))
    network = {"network.name": values["network.name"]} | defaults
    values = {path: value for path, value in values.items() if path not in network} | {
        path: values.get(path, default) for path, default in network.items()
    }
    # A recipe may set options of a method or loss too, for all jobs that have it.
    values |= {path: value for path, value in layers.values.items() if path.split(".")[0] in JOB_PARTS}
    return {
        "kind": "recipe",
        "name": recipe.name,
        "aliases": [],
        "about": [recipe.description],
        "source": recipe.source,
        "extends": _extends(name),
        "notes": _header(recipe_path(name)),
        "budgets": budgets(recipe.dataset, recipe.splits),
        "fields": [
            {"path": path, "value": value, "from": layers.origins.get(path, "default").removeprefix("recipe ")}
            for path, value in values.items()
        ],
        "overrides": [
            {"when": override.when, "set": override.set, "from": layer.removeprefix("recipe ")}
            for layer, override in overrides
        ],
        "seeds": list(recipe.seeds),
    }


def _extends(name: str) -> list[str]:
    """The recipes that this one extends, nearest first."""
    base = load_yaml(recipe_path(name)).get("extends")
    return [base, *_extends(base)] if base else []


def _header(path: Path) -> list[str]:
    """The comment that a recipe file begins with, which says what its sources leave open: one entry per list item."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return _items("\n".join(lines))
