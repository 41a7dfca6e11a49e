"""What a grid says about its table: columns, order, what stands side by side, whose print it follows.

Presentation only: nothing of it reaches a job or its digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sslbench.config.draws import family_of
from sslbench.config.job import Job
from sslbench.config.layers import COMPONENTS
from sslbench.config.published import PublishedTable, published_table
from sslbench.config.splits import load_splits
from sslbench.config.text import first_few
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.options import Frozen

GAIN, HOURS = "gain", "hours"
DERIVED = (GAIN, HOURS)  # columns that no protocol measures
SIZE_PARTS = ("head", "tail")  # classes by size
LENS_CLASSES = 6  # from this many classes on they are head, medium and tail
MARKS = ("best", "second", "third")
AgainstIn = Literal["column", "line"]
_SPREADS = ("std", "std/class")


@dataclass(frozen=True)
class ColumnSpec:
    """One of a table's `columns`, read.

    Attributes:
        metric: of the protocol, or `gain`, or `hours`.
        classes: None: the average alone; empty: one column for each class; else for each of these; `head` and `tail`
            stand for the large and the small ones where no class is called so.
    """

    metric: str
    classes: tuple[str, ...] | None = None

    @classmethod
    def read(cls, text: str) -> ColumnSpec:
        """Read `dsc`, `dsc/class`, `dsc/es,rag,lag` or `dsc/head,tail`."""
        metric, per_class, names = text.replace(" ", "").partition("/")
        if not per_class:
            return cls(metric)
        if not names.strip(","):
            raise UsageError(f"the table column '{text}' names no class", f"{metric}/class: a column for each")
        return cls(metric, () if names == "class" else tuple(name.lower() for name in names.split(",") if name))

    @property
    def key(self) -> str:
        """As `decimals` names it: `dsc`, `dsc/class`."""
        return self.metric if self.classes is None else f"{self.metric}/class"


class ByClass(Frozen):
    """Columns by class: the average, then each class, with all metrics."""

    by: Literal["class"]
    metrics: list[str]


class LensSpec(Frozen):
    """Which classes are large and which are small, where that is not the largest and the smallest third."""

    head: list[str] = Field(min_length=1)
    tail: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> LensSpec:
        names = [name.lower() for name in (*self.head, *self.tail)]
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise ValueError(f"{twice[0]} stands twice in head and tail")
        return self


@dataclass(frozen=True)
class Baseline:
    """Rows that others are held against.

    Attributes:
        method, loss, plugin: as jobs in canonical form have them; `plugin` may be empty.
    """

    method: str
    loss: str
    plugin: str

    @classmethod
    def read(cls, text: str) -> Baseline:
        """Read `cps`, `cps+ga` or `cps+ga+scdl`.

        Raises:
            UnknownNameError: a part that is not registered.
            UsageError: more parts than a job has.
        """
        parts = [part.strip() for part in text.split("+")]
        if len(parts) > len(COMPONENTS) or not all(parts):
            raise UsageError(f"baseline '{text}' names no row", "write METHOD, METHOD+LOSS or METHOD+LOSS+PLUGIN")
        names = [registry.get(kind, name).name for kind, name in zip(COMPONENTS, parts, strict=False)]
        method, loss, plugin = (*names, "default", "")[: len(COMPONENTS)] if len(names) == 1 else (*names, "")[:3]
        return cls(method, loss, plugin)

    def __str__(self) -> str:
        return "+".join(filter(None, (self.method, self.loss, self.plugin)))


class TableSpec(Frozen):
    """The content of a grid's table.

    Where `columns` is not given, those of its default that the protocol has. `groups` are the order of headings;
    `GA`-like names are losses, the others the methods' own groups.
    """

    of: str = Field(
        default="",
        description="a published table, `ga:T1`: caption, row names, headings and order are those of print",
    )
    order: Literal["file", "groups", "print"] | None = Field(
        default=None,
        description="of rows: as entries stand in the file, by `groups`, or as printed; default: print's or groups",
    )
    blocks: Literal["labeled", "dataset"] | None = Field(default=None, description="what stands side by side")
    together: list[Literal["recipe"]] = Field(
        default=[], description="rows of several recipes in one table, with a mark each"
    )
    columns: list[str] | ByClass = Field(
        default=["dsc", "asd", "dsc/class"],
        description="metrics averaged over classes (`dsc`), for each class (`dsc/class`), for some (`dsc/es,rag`), for "
        "large and small ones (`dsc/head,tail`), `gain`, `hours`; or {by: class, metrics: [...]}",
    )
    gain: bool = Field(
        default=True,
        description="what rows have over their baselines, behind the first average where `columns` do not place it",
    )
    baseline: str = Field(
        default="",
        description="METHOD[+LOSS[+PLUGIN]] that rows are held against; default: the same job with one part less",
    )
    lens: LensSpec | None = Field(
        default=None, description="{head: [...], tail: [...]}: large and small classes; default: thirds by size"
    )
    classes: Literal["label", "size"] = Field(default="label", description="their order: as labelled, or largest first")
    groups: list[str] = ["Reference", "General", "Imbalance"]
    decimals: dict[str, Annotated[int, Field(ge=0, le=6)]] = Field(
        default={}, description="by column (`dsc`, `dsc/class`), of `std`, and `std/class`, which is not shown without"
    )
    marks: list[Literal["best", "second", "third"]] = ["best", "second"]
    notes: Literal["full", "short"] = Field(
        default="full", description="under the table: all there is to say, or a line"
    )
    against: AgainstIn = Field(
        default="column", description="`report --against` in LaTeX: print in a `column`, or as a second `line`"
    )
    cite: bool = Field(default=False, description="whether methods are cited in LaTeX")
    caption: str = ""
    note: str = ""

    @field_validator("columns", mode="before")
    @classmethod
    def _of_either_form(cls, columns: Any) -> Any:
        if not isinstance(columns, list | ByClass) and not (isinstance(columns, dict) and columns.get("by") == "class"):
            raise ValueError("columns are a list, or {by: class, metrics: [...]}")
        if isinstance(columns, dict) and not columns.get("metrics"):
            raise ValueError("columns by class name no metrics: write {by: class, metrics: [dsc, hd95]}")
        return columns

    @field_validator("marks")
    @classmethod
    def _in_order(cls, marks: list[str]) -> list[str]:
        if tuple(marks) != MARKS[: len(marks)]:
            raise ValueError("marks are best, second, third in this order, from the first")
        return marks

    @model_validator(mode="after")
    def _consistent(self) -> TableSpec:
        if self.of:
            published_table(self.of)
        if self.order == "print" and not self.of:
            raise ValueError("the order of print needs `of`, the table that is meant")
        if "groups" in self.model_fields_set and self.ordered != "groups":
            raise ValueError(f"`groups` orders nothing where the order is that of {self.ordered}: leave one out")
        return self

    @property
    def ordered(self) -> str:
        """The order of rows that is in force."""
        return self.order or ("print" if self.of else "groups")

    @property
    def published(self) -> PublishedTable | None:
        """The published table that it follows."""
        return published_table(self.of) if self.of else None

    @property
    def by_class(self) -> bool:
        """Whether the metrics of a class stand together, not the classes of a metric."""
        return isinstance(self.columns, ByClass)

    @property
    def held_against(self) -> Baseline | None:
        """The baseline that it names, for all rows; None: each row has its own."""
        return Baseline.read(self.baseline) if self.baseline else None

    @property
    def gains_unplaced(self) -> bool:
        """Whether gains are asked for and no column says where."""
        return self.gain and not self.by_class and ColumnSpec(GAIN) not in self.wanted()

    def wanted(self) -> list[ColumnSpec]:
        """The columns in words; of `by: class` those of one metric after the other."""
        if isinstance(self.columns, ByClass):
            return [ColumnSpec(metric, classes) for metric in self.columns.metrics for classes in (None, ())]
        return [ColumnSpec.read(text) for text in self.columns]

    def check(self, jobs: Sequence[Job]) -> None:
        """Check that the table can be filled by the grid's jobs.

        Raises:
            UsageError: a column that none of the protocols measures or that stands twice, a class that no dataset has,
                blocks or recipes that the jobs do not have.
        """
        facts = list(dict.fromkeys(map(_Facts.of, jobs)))
        self._check_columns(facts)
        self._check_lens(facts)
        self._check_baseline(jobs)
        if self.blocks == "labeled":
            _check_budgets(facts)
        if self.blocks == "dataset":
            _check_datasets(facts, together=bool(self.together))
        if self.together:
            self._check_together(facts)

    def _check_columns(self, facts: Sequence[_Facts]) -> None:
        wanted = self.wanted()
        if not wanted:
            raise UsageError("the table has no columns", "name some, or leave `columns` out for the usual ones")
        if "columns" in self.model_fields_set:
            classes = {short for fact in facts for short in fact.classes}
            known = {*metric_keys(fact.protocol for fact in facts), *DERIVED}
            seen: set[tuple[str, str]] = set()
            for column in wanted:
                if column.key not in known:
                    raise UnknownNameError("table column", column.key, known)
                for name in ("",) if column.classes is None else column.classes or classes:
                    if name and name not in classes and name not in SIZE_PARTS:
                        raise UnknownNameError(
                            f"class in the table column '{column.metric}/...':", name, [*classes, *SIZE_PARTS, "class"]
                        )
                    if (column.metric, name) in seen:
                        shown = f"{column.metric}/{name}" if name else column.metric
                        raise UsageError(f"the table column '{shown}' stands twice", "name each column once")
                    seen.add((column.metric, name))
        if wanted[0].metric in DERIVED:
            first = wanted[0].metric
            raise UsageError(f"the first table column is `{first}`", "rows are ordered by what a protocol measures")
        known = {*(column.key for column in wanted), *_SPREADS}
        for key in self.decimals:
            if key not in known:
                raise UnknownNameError("column in `decimals`:", key, known)

    def _check_lens(self, facts: Sequence[_Facts]) -> None:
        """Check that the classes it names are there, and that columns of large and small ones have some."""
        if self.lens:
            known = {short for fact in facts for short in fact.classes}
            for part in SIZE_PARTS:
                for name in getattr(self.lens, part):
                    if name.lower() not in known:
                        raise UnknownNameError(f"class in `lens: {part}`:", name, known)
            return
        asked = {name for column in self.wanted() for name in column.classes or () if name in SIZE_PARTS}
        for fact in facts:
            if (parts := sorted(asked - {*fact.classes})) and len(fact.classes) < LENS_CLASSES:
                raise UsageError(
                    f"the table column '{self.wanted()[0].metric}/{parts[0]}' has no classes: {fact.dataset} has "
                    f"{len(fact.classes)}, and fewer than {LENS_CLASSES} are not split by size",
                    "name them: `lens: {head: [...], tail: [...]}`",
                )

    def _check_baseline(self, jobs: Sequence[Job]) -> None:
        wanted = self.held_against
        if wanted is None:
            return
        known = {
            str(Baseline(job.method, job.loss, job.plugin or "")): job for job in (job.resolved.job for job in jobs)
        }
        if str(wanted) not in known:
            raise UnknownNameError("baseline", str(wanted), known)

    def _check_together(self, facts: Sequence[_Facts]) -> None:
        recipes: dict[str, set[str]] = {}
        for fact in facts:
            recipes.setdefault(fact.dataset, set()).add(fact.recipe)
        if all(len(names) < 2 for names in recipes.values()):
            raise UsageError("`together: [recipe]` joins recipes, but no dataset of the grid has two", "leave it out")
        for column in self.wanted() if "columns" in self.model_fields_set else ():
            for fact in facts:
                if column.metric not in (*DERIVED, *fact.metrics):
                    raise UsageError(
                        f"the table column '{column.metric}' is not for rows of {fact.recipe}: "
                        f"its protocol {fact.protocol} does not measure it",
                        "rows that stand together share their columns",
                    )


@dataclass(frozen=True)
class _Facts:
    """What a table has to know of a job."""

    recipe: str
    dataset: str
    protocol: str
    labeled: str
    full: bool

    @classmethod
    def of(cls, job: Job) -> _Facts:
        recipe, canonical = job.resolved.recipe, job.resolved.job
        lists = load_splits(recipe.dataset, recipe.splits)
        budget = lists.budget(canonical.labeled)
        full = len(budget.labeled) == len(lists.train)
        # All draws of a budget are one row.
        labeled = family_of(budget.slug) if budget.draw else budget.title
        return cls(canonical.recipe, recipe.dataset, recipe.protocol, labeled, full)

    @property
    def metrics(self) -> tuple[str, ...]:
        found: tuple[str, ...] = registry.component("protocol", self.protocol).metrics
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(info.short.lower() for info in registry.component("dataset", self.dataset).classes)


def _check_budgets(facts: Sequence[_Facts]) -> None:
    budgets: dict[str, set[str]] = {}
    for fact in facts:
        if not fact.full:
            budgets.setdefault(fact.recipe, set()).add(fact.labeled)
    if all(len(titles) < 2 for titles in budgets.values()):
        raise UsageError(
            "`blocks: labeled` puts label budgets side by side, but no recipe of the grid has two",
            "the upper bound with all labels is none of them: leave `blocks` out",
        )


def _check_datasets(facts: Sequence[_Facts], together: bool) -> None:
    datasets = list(dict.fromkeys(fact.dataset for fact in facts))
    if len(datasets) < 2:
        raise UsageError(
            f"`blocks: dataset` puts datasets side by side, but the grid has {datasets[0]} alone", "leave `blocks` out"
        )
    for dataset in datasets:
        own = [fact for fact in facts if fact.dataset == dataset]
        _one({fact.labeled for fact in own if not fact.full}, f"label budgets of {dataset}", "make a grid of each")
        if not together:
            _one({fact.recipe for fact in own}, f"recipes of {dataset}", "`together: [recipe]` joins them")


def _one(names: Collection[str], what: str, hint: str) -> None:
    if len(names) > 1:
        raise UsageError(
            f"`blocks: dataset` has room for one each, but there are {what}: {first_few(sorted(names))}", hint
        )


def metric_keys(protocols: Iterable[str]) -> set[str]:
    """The columns that protocols can fill: each metric as an average, and by class."""
    metrics = {metric for name in protocols for metric in registry.component("protocol", name).metrics}
    return metrics | {f"{metric}/class" for metric in metrics}
