"""How things are called in tables: the papers' names for rows, groups, metrics, organs and budgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from sslbench.config import weightings
from sslbench.config.draws import FAMILY
from sslbench.config.splits import load_splits, slug_of
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.model import Direction

REFERENCE = "Reference"  # the group of the rows that methods are held against
IMBALANCE = "Imbalance"  # that of rows with a weighting


@dataclass(frozen=True)
class MetricStyle:
    """How a metric is shown.

    Attributes:
        title: its name in headers.
        direction: which way is better; empty: not known, so nothing is marked best.
        percent: stored as a share of 1, shown in percent.
    """

    title: str
    direction: Direction
    percent: bool = False


_METRICS = {
    "dsc": MetricStyle("DSC", "up", percent=True),
    "jaccard": MetricStyle("Jaccard", "up", percent=True),
    "nsd": MetricStyle("NSD", "up", percent=True),
    "asd": MetricStyle("ASD", "down"),
    "assd": MetricStyle("ASSD", "down"),
    "hd95": MetricStyle("HD95", "down"),
    "hd95max": MetricStyle("HD95 (max)", "down"),
    "rvd": MetricStyle("RVD", "", percent=True),  # best at 0, in between
    "avd": MetricStyle("AVD", "down"),
}

_STRUCTURES = (
    "Sp", "RK", "LK", "Ga", "Es", "Li", "St", "Ao", "IVC", "PSV", "PA", "RAG", "LAG", "Du", "Bl", "P/U",
    "RV", "MYO", "LV",
)  # fmt: skip
_ABBREVIATIONS = {name.lower(): name for name in _STRUCTURES} | {"pu": "P/U"}


def metric_style(metric: str) -> MetricStyle:
    """The style of a metric; one that is not known here shows its own name and no direction."""
    name, at, tolerance = metric.partition("@")
    style = _METRICS.get(name)
    if style is None:
        return MetricStyle(metric.upper(), "")
    return replace(style, title=f"{style.title}{at}{tolerance}")


def class_title(short: str) -> str:
    """The papers' capitals for an abbreviation (`rk` → `RK`); any other stays as the dataset spells it."""
    return _ABBREVIATIONS.get(short.lower(), short)


def dataset_title(dataset: str) -> str:
    """A dataset's full name."""
    try:
        return str(getattr(registry.component("dataset", dataset), "title", dataset))
    except SSLBenchError:  # results outlive the package that made them
        return dataset


def short_title(dataset: str) -> str:
    """A dataset's name without what it is short for or says in brackets."""
    return dataset_title(dataset).partition(" (")[0]


def budget_title(dataset: str, splits: str, labeled: str) -> str:
    """A label budget for people: `20pct` → `20%`; all draws of one: `draws of 20%`."""
    if labeled.endswith(FAMILY):
        return f"draws of {budget_title(dataset, splits, labeled.removesuffix(FAMILY))}"
    try:
        return load_splits(dataset, splits).budget(labeled).title
    except SSLBenchError:
        return labeled.replace("pct", "%").replace("-", " ")


def is_full_budget(dataset: str, splits: str, labeled: str) -> bool:
    """Whether every training case is labelled: an upper bound that does not compete."""
    try:
        lists = load_splits(dataset, splits)
        return set(lists.budget(labeled).labeled) == set(lists.train)
    except SSLBenchError:
        return slug_of(labeled) == "100pct"


def method_group(method: str) -> str:
    """The heading that a method stands under."""
    try:
        return registry.facts("method", method).group
    except SSLBenchError:
        return "Other"


def method_caution(method: str) -> str:
    """What a method says about its own results; empty: nothing."""
    try:
        return registry.facts("method", method).caution
    except SSLBenchError:
        return ""


def weighted_method(method: str) -> str:
    """What a preset that stands for weightings configures, `cps` of `dhc`; any other method is itself."""
    try:
        facts = registry.facts("method", method)
    except SSLBenchError:  # results outlive the package that made them
        return method
    return facts.base if any(map(weightings.concerns, facts.set)) else method


def group_of(method: str, loss: str, groups: Collection[str], settings: Collection[str] = ()) -> str:
    """The heading of a row: the loss's name if `groups` lists it, else the method's own group.

    Args:
        settings: dotted paths that the row sets; with a weighting among them it is a row about imbalance.
    """
    title, _ = _title("loss", loss)
    if title and title in groups:
        return title
    weighted = any(weightings.concerns(path.removeprefix("method.")) for path in settings)
    return IMBALANCE if weighted else method_group(method)


def row_label(method: str, loss: str, plugin: str, settings: Mapping[str, str]) -> str:
    """A row's name in the papers' way: `CPS`, `GA-CPS`, `SCDL-GA-CPS`, and what was set in brackets.

    Args:
        method, loss, plugin: registered names; `plugin` may be empty.
        settings: dotted paths and values that tell this row from the plain combination.
    """
    titles = [_title("loss", loss), _title("method", method)]
    if plugin:
        titles.insert(0, _title("plugin", plugin))
    parts = ("method.", "loss.", "plugin.")
    short = [path.partition(".")[2] if path.startswith(parts) else path for path in settings]
    names = short if len(set(short)) == len(short) else list(settings)
    extras = [extra for _, extra in titles if extra]
    extras += [f"{name}={value}" for name, value in zip(names, settings.values(), strict=True)]
    label = "-".join(title for title, _ in titles if title)
    return f"{label} ({', '.join(extras)})" if extras else label


def _title(kind: str, name: str) -> tuple[str, str]:
    """A component's name in tables, and what a preset named after it adds: (`GA`, `labeled only`)."""
    try:
        facts = registry.facts(kind, name)
    except SSLBenchError:  # results outlive the package that made them
        return ("" if (kind, name) == ("loss", "default") else name.rpartition(":")[2]), ""
    if facts.title:
        return facts.title, ""
    title = facts.base_title or ("" if (kind, facts.base) == ("loss", "default") else facts.base)
    if facts.base == facts.name:
        return title, ""
    if name.startswith(facts.base + "_"):
        return title, name.removeprefix(facts.base + "_").replace("_", " ")
    return name.upper(), ""  # a preset with a name of its own is an acronym as a rule: DHC
