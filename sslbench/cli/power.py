"""`sslbench power`: how many seeds and patients a difference takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from sslbench.cli.console import out, print_json
from sslbench.cli.options import Choice, DataDir, Json, ResultsDir, SourceArgument, opened, option, several
from sslbench.core.errors import UsageError

if TYPE_CHECKING:
    from sslbench.reporting.statistics import Components

_SPREAD = "Spread of the difference, in points (standard deviations)"
_ASSUMED = {"--sd-seeds": 2.0, "--sd-patients": 4.0, "--sd-rest": 3.0}


@dataclass(frozen=True)
class _Design:
    """What is planned from.

    Attributes:
        spreads: of pairs of rows.
        source: in words; empty where they are assumed.
        unit: of differences.
        seeds, patients: that there are; empty where nothing was measured.
    """

    spreads: list[Components]
    source: str = ""
    unit: str = "points"
    seeds: tuple[int, ...] = ()
    patients: tuple[int, ...] = ()


def power(
    name: SourceArgument = None,
    difference: Annotated[
        float | None, option("POINTS", "A difference to find: what it takes is marked and said.", "--difference", "-d")
    ] = None,
    seeds: Annotated[list[str] | None, option("NUMBERS", "Seeds to try: 3,5,10.")] = None,
    patients: Annotated[list[str] | None, option("NUMBERS", "Test patients to try: 6,20,40.")] = None,
    sd_seeds: Annotated[
        float | None, option("SD", "From one seed's trainings to the next; 2.", panel=_SPREAD, min=0)
    ] = None,
    sd_patients: Annotated[float | None, option("SD", "From one patient to the next; 4.", panel=_SPREAD, min=0)] = None,
    sd_rest: Annotated[float | None, option("SD", "Of both together; 3.", panel=_SPREAD, min=0)] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """The difference that seeds × patients find with about 80 % power, at 5 %, two-sided: from the pairs of a grid that
    has results, or from an assumed spread.

    Of several pairs it is the median. With two or three seeds the power is 70 to 77 % in simulations; with two, more
    patients do not help: how much seeds differ stays unknown.
    """
    from sslbench.reporting import power as planning

    given = {"--sd-seeds": sd_seeds, "--sd-patients": sd_patients, "--sd-rest": sd_rest}
    if name:
        if asked := [flag for flag, value in given.items() if value is not None]:
            raise UsageError(f"{asked[0]} and {name} do not go together", "the spreads are those of its pairs")
        opened(data_dir)
        design = _measured(name, results_dir)
    else:
        design = _assumed(given)
    tried = _numbers(seeds, "--seeds") or sorted({2, 3, 5, 10, *design.seeds})
    tested = _numbers(patients, "--patients") or sorted({6, 12, 20, 40, 120, *design.patients})
    if difference is not None and not 0 < difference < math.inf:
        raise UsageError(f"--difference is {difference:g}", "give it in points, above 0")
    found = planning.table(design.spreads, tried, tested)
    least = [planning.resolved(design.spreads, math.inf, units) for units in tested]
    needed = [] if difference is None else [planning.fewest_seeds(design.spreads, difference, n) for n in tested]
    if as_json:
        spread = _typical(design.spreads)
        print_json(
            {
                "source": design.source or None,
                "pairs": len(design.spreads) if design.source else 0,
                "spread": {"seeds": spread.seed, "patients": spread.unit, "rest": spread.rest},
                "unit": design.unit,
                "power": 0.8,
                "patients": tested,
                "detectable": {str(number): row for number, row in zip(tried, found, strict=True)},
                "never_below": least,
                **({"difference": difference, "seeds_needed": needed} if difference is not None else {}),
            }
        )
        return
    _draw(design, tried, tested, found, least, needed, difference)


def _measured(name: str, results_dir: Any) -> _Design:
    """The spreads of the pairs of a grid, a results folder or a file of records."""
    from sslbench.cli.reports import opened_report
    from sslbench.config.text import counted
    from sslbench.core import settings
    from sslbench.reporting.labels import metric_style
    from sslbench.reporting.power import spreads_of

    made = opened_report(name, Choice(), settings.results_dir(results_dir))
    held = [each for table in made.tables for each in table.gains]
    gains = [each.gain for each in held if each.metric == held[0].metric]
    spreads = spreads_of(gains)
    if not spreads:
        raise UsageError(
            f"{name} has no pair of rows over two seeds and five patients",
            "run more seeds, or assume a spread: sslbench power --sd-seeds 2",
        )
    measured = [gain for gain in gains if gain.average is not None and gain.seeds > 1]
    typical = _typical(spreads)
    style = metric_style(held[0].metric)
    unit = "points" if style.percent else f"units of {style.title}"
    pairs = counted(len(spreads), "pair") + " of " + name + (", medians" if len(spreads) > 1 else "")
    return _Design(
        spreads,
        f"{pairs}: SD {typical.seed:.1f} of seeds, {typical.unit:.1f} of patients, {typical.rest:.1f} of the rest",
        unit,
        tuple({gain.seeds for gain in measured}),
        tuple({gain.units for gain in measured}),
    )


def _assumed(given: dict[str, float | None]) -> _Design:
    from sslbench.reporting.statistics import Components

    sds = [_ASSUMED[flag] if value is None else value for flag, value in given.items()]
    if not all(math.isfinite(sd) for sd in sds):
        raise UsageError("a standard deviation is not finite", "give it in points")
    if not any(sds):
        raise UsageError("without any spread every difference is found", "give one of the standard deviations")
    return _Design([Components(*sds)])


def _typical(spreads: list[Components]) -> Components:
    """The median of each component."""
    from statistics import median

    from sslbench.reporting.statistics import Components

    return Components(*(median(getattr(each, part) for each in spreads) for part in ("seed", "unit", "rest")))


def _numbers(values: list[str] | None, flag: str) -> list[int]:
    found = []
    for text in several(values):
        if not (text.isascii() and text.strip().isdigit()) or int(text) < 2:
            raise UsageError(f"{flag} {text}: not a number of 2 or more", f"write {flag} 3,5,10")
        found.append(int(text))
    return sorted(set(found))


def _draw(
    design: _Design,
    tried: list[int],
    tested: list[int],
    found: list[list[float]],
    least: list[float],
    needed: list[int | None],
    difference: float | None,
) -> None:
    from rich.text import Text

    from sslbench.cli.terminal.tables import indented, table_of

    console = out()
    if design.source:
        console.print(design.source, highlight=False)
    title = f"Difference found in about 80 of 100, in {design.unit}: seeds down, test patients across"
    console.print(title, highlight=False)
    drawn = table_of("seeds", *map(str, tested))

    def cells(values: list[Any]) -> list[Text]:
        bold = difference is not None
        return [Text(f"{value:.1f}", style="bold" if bold and value <= (difference or 0) else "") for value in values]

    for number, row in zip(tried, found, strict=True):
        drawn.add_row(Text(str(number)), *cells(row))
    drawn.add_row(Text("never below"), *cells(least))
    if difference is not None:
        drawn.add_row(Text(f"{difference:g} needs"), *(Text(str(number) if number else "--") for number in needed))
    indented(console, drawn)
    if difference is not None and not all(needed):
        console.print(f"--: too few patients for {difference:g} points, however many seeds.", highlight=False)
