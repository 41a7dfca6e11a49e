"""The standing of runs, and the plan of a launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say, wrapped
from sslbench.cli.terminal.durations import duration
from sslbench.cli.terminal.live import progress_cells, time_left
from sslbench.cli.terminal.tables import Rows
from sslbench.config.text import counted, split_outside_brackets
from sslbench.reporting.labels import metric_style

if TYPE_CHECKING:
    from sslbench.execution.left import Left

_STATES = {
    "finished": "green",
    "failed": "red",
    "running": "cyan",
    "interrupted": "yellow",
    "damaged": "red",
    "queued": "blue",
    "pending": "dim",
}
_WAITING = ("queued", "pending")  # nothing of them has been done

_NARROWEST = 24  # columns of the terminal that a run's name keeps

# What a narrow terminal does without, least missed first; and what before it breaks a word.
_SPARE = ("it/s", "loss", "val. DSC", "done")
_DEAR = ("time", "step")

_JOB = ("recipe", "labeled", "cell")  # what names a job, the seed apart


def runs(console: Console, rows: Rows, left: Left) -> None:
    """Draw where runs stand, under headings of recipe and budget; then the reasons of those that did not end well, and
    what is left."""
    console.print(Text("\n").join(standing_lines(rows, console.width)), soft_wrap=True)
    for line in [Text(), *summary_lines(rows, left)]:
        say(console, line)


def standing_lines(rows: Rows, width: int) -> list[Text]:
    """Where runs stand, and the reasons of those that did not end well, in lines of a width."""
    twins = Counter((*(row[part] for part in _JOB), row["seed"]) for row in rows)
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        # Seeds that never began have nothing to tell each on its own.
        own = (row["state"],) if row["state"] in _WAITING and not row["progress"] else (number,)
        job = tuple(row[part] for part in _JOB)
        line = merged.setdefault((*job, *own), {**row, "seeds": []})
        # The digest tells apart what differs in nothing else: an older version, other case lists.
        line["seeds"].append(f"{row['seed']}" + (f" {row['digest']}" if twins[(*job, row["seed"])] > 1 else ""))
    metrics = {row["score"]["metric"] for row in rows if row["score"]}
    metric = next(iter(metrics)) if len(metrics) == 1 else ""
    cells: list[list[Text]] = []
    for line in merged.values():
        step, loss, validation, pace = progress_cells(line["progress"])[:4]
        active, finished = line["state"] == "running", line["state"] == "finished"
        share = line["share"] if line["progress"].get("stage") == "training" else None
        cells.append(
            [
                Text(", ".join(line["seeds"])),
                Text(line["state"], style=_STATES.get(line["state"], "")),
                *map(
                    Text, ("" if finished else step, "" if share is None else f"{100 * share:.0f} %", loss, validation)
                ),
                *map(Text, (score_text(line["score"], named=not metric), pace if active else "", _time(line))),
            ]
        )
    test = f"test {metric_style(metric).title}" if metric else "test"
    headers = ["seed", "state", "step", "done", "loss", "val. DSC", test, "it/s", "time"]
    lines = _grouped(list(merged.values()), headers, cells, width)
    for row in rows:
        if process := row.get("process"):
            silent = process.get("silent_s")
            silence = f", nothing done for {duration(silent)}" if silent else ""
            task = f", Slurm's task {row['slurm']['task']}" if row.get("slurm") else ""
            lines += _reason("running", row, f"process {process['pid']} on {process['host']}{task}{silence}", width)
    for row in rows:
        if row["error"]:
            lines += _reason(row["state"], row, row["error"], width)
    return lines


def summary_lines(rows: Rows, left: Left) -> list[Text]:
    """How many runs stand where; what is left of those that are not over, and what that stands on."""
    counts = {state: sum(row["state"] == state for row in rows) for state in _STATES}
    told = f"{counted(len(rows), 'run')}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    waits = Counter(
        f"{row['slurm']['state']}" + (f" ({row['slurm']['reason']})" if row["slurm"]["reason"] else "")
        for row in rows
        if row["state"] == "queued"
    )
    if waits:
        told += "; Slurm: " + ", ".join(f"{count} {wait}" for wait, count in waits.items())
    if not left.jobs:
        return [Text(told)]
    ahead = time_left(left)
    ahead = f"{ahead[0].upper()}{ahead[1:]}, {left.lanes} at a time"
    return [Text(told), Text(ahead), *(Text(f"  {line}", style="dim") for line in _grounds(left))]


def _grounds(left: Left) -> list[str]:
    """What an estimate of what is left stands on."""
    lines = []
    if left.measured:
        lines.append(f"{counted(left.measured, 'job')}: measured, by steps of its kind")
    if left.modelled:
        rate = "an assumed rate" if left.assumed else "the rate of the steps measured"
        lines.append(f"{counted(left.modelled, 'job')}: modelled, operations at {rate}; training's passes alone")
    if left.unknown:
        lines.append(f"{counted(left.unknown, 'job')}: not known, and not counted")
    return lines


def score_text(score: Mapping[str, Any] | None, named: bool = False) -> str:
    """The score of a run as tables show it: `64.3 %`; `named`: `DSC 64.3 %`."""
    if not score:
        return ""
    style = metric_style(score["metric"])
    value = f"{100 * score['value']:.1f} %" if style.percent else f"{score['value']:.2f}"
    return f"{style.title} {value}" if named else value


def _time(row: Mapping[str, Any]) -> str:
    """What a finished run's training took, or how long one that runs will take."""
    if row["state"] == "finished" and row["training_seconds"]:
        return duration(row["training_seconds"])
    if row["state"] == "running" and row["left"] and row["left"]["ground"] != "unknown":
        return f"{duration(row['left']['seconds'])} left"
    return ""


def _reason(state: str, row: Mapping[str, Any], text: str, width: int) -> list[Text]:
    """A line about one run, and what is to be said of it below."""
    heading = Text.assemble((f"{state}: {row['run']}", _STATES.get(state, "")))
    said = wrapped(Text(text), max(width - 2, 1)).split("\n")
    return [Text(), *wrapped(heading, width).split("\n"), *(Text("  ").append_text(line) for line in said)]


def plan(console: Console, rows: Rows) -> None:
    """The jobs of a launch; seeds that share their fate share a line."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[part] for part in (*_JOB, "state", "action"))
        merged.setdefault(key, {**row, "seeds": []})["seeds"].append(str(row["seed"]))
    lines = list(merged.values())
    cells = [
        [
            Text(", ".join(line["seeds"])),
            Text(line["state"], style=_STATES.get(line["state"], "")),
            Text("wait for its process" if line["action"] == "wait" else line["action"]),
        ]
        for line in lines
    ]
    console.print(Text("\n").join(_grouped(lines, ["seed", "state", "plan"], cells, console.width)), soft_wrap=True)


def _grouped(rows: Rows, headers: list[str], cells: list[list[Text]], width: int) -> list[Text]:
    """Rows under a heading per recipe and budget, columns aligned over all of them, in lines of a width.

    Columns without content are left out, and so are those of `_SPARE` and `_DEAR` where the terminal is too narrow.
    """
    used = [place for place in range(len(headers)) if any(line[place].plain for line in cells)]
    widths = {place: max(len(headers[place]), *(len(line[place].plain) for line in cells)) for place in used}

    def room() -> int:
        """Return the width left for the names, after an indent of one and two blanks behind each column."""
        return width - 3 - sum(widths[place] + 2 for place in used)

    shared = _shared(rows)
    own = [_own(row["cell"], shared) for row in rows]
    word = max(len(word) for name in {*own} for word in wrapped(Text(name), _NARROWEST - 2).plain.splitlines())
    least = max(min(_NARROWEST, max(map(len, own))), word)
    # Where it is tight a list of seeds folds first, then columns go, and last of all the names fold.
    seed = max(len(part) for line in cells for part in ["seed", *line[0].plain.split(", ")])
    if room() < least:
        widths[0] = max(seed, widths[0] + room() - least)
    for header in (*_SPARE, *_DEAR):
        if room() < (least if header in _SPARE else word) and header in headers and headers.index(header) in used:
            used.remove(headers.index(header))
    broken = any(len(name) > room() for name in own)
    named = {name: [*wrapped(_cell(name, broken), max(room(), 1)).split("\n")] for name in {*own}}
    longest = max(len(line) for lines in named.values() for line in [Text("run"), *lines])
    widths = {-1: min(longest, max(12, room())), **{place: widths[place] for place in used}}
    left = {-1, *(place for place in used if headers[place] in ("seed", "state", "plan"))}

    def drawn(columns: Sequence[Sequence[Text]]) -> list[Text]:
        """A row: of each column its lines."""
        made = []
        for number in range(max(map(len, columns))):
            line = Text(" ")
            for (place, size), texts in zip(widths.items(), columns, strict=True):
                text = texts[number] if number < len(texts) else Text()
                blank = " " * max(size - text.cell_len, 0)
                line.append_text(text).append(blank) if place in left else line.append(blank).append_text(text)
                line.append("  ")
            line.rstrip()
            made.append(line)
        return made

    lines = []
    if shared:
        italic = wrapped(Text(f"all runs: ~{','.join(shared)}", style="italic"), width - 1).split("\n")
        lines += [Text(" ").append_text(line) for line in italic]
    lines += drawn([[Text(header, style="bold")] for header in ["run", *(headers[place] for place in used)]])
    where: tuple[str, str] | None = None
    for row, name, line in zip(rows, own, cells, strict=True):
        if where != (row["recipe"], row["labeled"]):
            where = row["recipe"], row["labeled"]
            lines.append(Text("/".join(where), style="italic"))
        seeds = [line[0]] if len(line[0]) <= widths[0] else [*wrapped(line[0], widths[0]).split("\n")]
        lines += drawn([named[name], *(seeds if place == 0 else [line[place]] for place in used)])
    return lines


def _shared(rows: Rows) -> list[str]:
    """Return what all of several runs set to the same value."""
    variants = [split_outside_brackets(row["cell"].partition("~")[2]) for row in rows]
    several = len({row["cell"] for row in rows}) > 1
    return [part for part in variants[0] if several and all(part in parts for parts in variants)]


def _own(cell: str, shared: list[str]) -> str:
    """The name of a run without what all share."""
    named, _, variant = cell.partition("~")
    parts = [part for part in split_outside_brackets(variant) if part not in shared]
    return f"{named}~{','.join(parts)}" if parts else named


def _cell(cell: str, broken: bool) -> Text:
    """Method, loss and plugin, and how the job differs from them, which may stand on a line of its own."""
    named, _, variant = cell.partition("~")
    text = Text(named)
    if variant:
        text.append("\n~" if broken else "~", style="dim").append(variant, style="dim")
    return text
