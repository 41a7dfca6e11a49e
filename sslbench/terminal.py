"""How the command line draws its rows: for people, at any width. What is drawn comes from the modules beside it."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Rows = Sequence[Mapping[str, Any]]

_STATES = {"finished": "green", "failed": "red", "running": "cyan", "interrupted": "yellow", "pending": "dim"}
_STATUSES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_SEVERITIES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}
_NARROWEST = 24  # columns of the terminal that a run's name keeps
_SPARE = ("it/s", "loss")  # what a narrow terminal does without, least missed first
_JOB = ("recipe", "labeled", "cell")  # what names a job, the seed apart


def value_text(value: Any) -> str:
    """A value of a configuration as one would type it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line that the terminal may wrap, but that stays one line when it is copied."""
    console.print(Text(text, style=style), soft_wrap=True)


def _table(*headers: str, style: str = "bold") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=style, pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, overflow="fold", no_wrap=number == 0)
    return table


def _indented(console: Console, content: Any, left: int = 1) -> None:
    console.print(Padding(content, (0, 0, 0, left)))


# ---------------------------------------------------------------------------------------------- list, validate


def names(console: Console, rows: Rows) -> None:
    """A listing: name, aliases where there are any, what it is."""
    aliased = any(row["aliases"] for row in rows)
    table = _table("name", *(["aliases"] if aliased else []), "about")
    for row in rows:
        name = ("  " if row.get("preset_of") else "") + row["name"]
        cells = [name, *([", ".join(row["aliases"])] if aliased else []), row["about"]]
        table.add_row(*map(Text, cells))
    _indented(console, table)


def layers(console: Console, resolved: Rows) -> None:
    """The values of configurations with the layer that each came from: what all share first, then what differs.

    Args:
        console: to print on.
        resolved: `title`, `values` and `layers` of each.
    """
    first = resolved[0]
    shared = [path for path in first["values"] if all(_same(row, first, path) for row in resolved)]
    if len(resolved) > 1:
        _values(console, "all jobs", first, shared)
    for row in resolved:
        own = [path for path in row["values"] if len(resolved) == 1 or path not in shared]
        _values(console, row["title"], row, own)


def _same(row: Mapping[str, Any], other: Mapping[str, Any], path: str) -> bool:
    return all(row[key].get(path) == other[key].get(path) and path in row[key] for key in ("values", "layers"))


def _values(console: Console, title: str, row: Mapping[str, Any], paths: list[str]) -> None:
    say(console, title, "bold")
    if not paths:
        console.print(" nothing of its own")
    else:
        _indented(console, _field_table([(path, row["values"][path], row["layers"][path]) for path in paths]))
    console.print()


def _field_table(rows: Iterable[tuple[str, Any, str]]) -> Table:
    table = _table("field", "value", "from", style="dim")
    for path, value, layer in rows:
        table.add_row(path, Text(value_text(value)), Text(layer, style="dim" if layer == "default" else ""))
    return table


# ------------------------------------------------------------------------------------------------ laws and the matrix

_MARKS = {
    "holds": Text("✓", "green"),
    "broken": Text("✗", "bold red"),
    "exempt": Text("e", "yellow"),
    "irrelevant": Text("–", "dim"),
}
_WORSE = ("irrelevant", "holds", "exempt", "broken")


def verdicts(console: Console, rows: Rows, statements: Mapping[str, str]) -> None:
    """Laws by method: of one method each loss and dimension for itself, of several what is worst; then the reasons.

    Args:
        console: to print on.
        rows: of `Verdict.to_json`.
        statements: of the laws, by name.
    """
    several = len({row["method"] for row in rows}) > 1
    parts = ("method",) if several else ("loss", "dims")
    found: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for row in rows:
        subject = tuple(row[part] for part in parts)
        found.setdefault(row["law"], {}).setdefault(subject, []).append(row["status"])
    subjects = list(dict.fromkeys(subject for line in found.values() for subject in line))
    marks = {
        law: {subject: _MARKS[max(statuses, key=_WORSE.index)] for subject, statuses in line.items()}
        for law, line in found.items()
    }
    if several:
        by_method = {law: {method: mark for (method,), mark in line.items()} for law, line in marks.items()}
        _by_method(console, "law", by_method, [method for (method,) in subjects])
    else:
        table = _table("law", *("\n".join(subject) for subject in subjects), "says")
        for law, line in marks.items():
            cells = (line.get(subject, Text("")) for subject in subjects)
            table.add_row(Text(law), *cells, Text(statements[law], "dim"))
        _indented(console, table)
    console.print()
    if several:
        for law in found:
            say(console, f" {law}: {statements[law]}", "dim")
        console.print()
    reasons: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row["status"] in ("broken", "exempt"):
            line_of = (row["status"], row["method"], row["law"], row["reason"])
            reasons.setdefault(line_of, []).append(f"{row['loss']} {row['dims']}")
    for (status, method, law, reason), where in reasons.items():
        style = _MARKS[status].style
        text = f" {law}: {method} ({', '.join(where)}): {reason}"
        console.print(Text.assemble((f" {status}", style), text), soft_wrap=True)
    counts = Counter(row["status"] for row in rows)
    say(console, f" {len(rows)} verdicts: " + ", ".join(f"{counts[name]} {name}" for name in _MARKS if counts[name]))


def matrix(console: Console, rows: Rows) -> None:
    """Losses by methods: where a combination has no meaning, and why."""
    found: dict[str, dict[str, Text]] = {}
    for row in rows:
        found.setdefault(row["loss"], {})[row["method"]] = _hole(row["holes"])
    _by_method(console, "loss", found, list(dict.fromkeys(row["method"] for row in rows)))
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason in dict.fromkeys(row["holes"].values()):
            reasons.setdefault(reason, []).append(f"{row['method']} + {row['loss']}")
    console.print()
    for reason, where in reasons.items():
        console.print(Text.assemble((" hole", "yellow"), f" {reason}: {', '.join(where)}"), soft_wrap=True)
    holes, part = (sum(len(row["holes"]) == count for row in rows) for count in (2, 1))
    in_part = f", {part} with a meaning in 2-D or 3-D alone" if part else ""
    say(console, f" {len(rows)} cells: {len(rows) - holes} with a meaning, {holes} holes{in_part}")


def _hole(holes: Mapping[str, str]) -> Text:
    if not holes:
        return Text("✓", "green")
    return Text("·", "yellow") if len(holes) == 2 else Text("2" if "3d" in holes else "3", "yellow")


_ENDS = {"ran": "green", "failed": "bold red", "hole": "yellow"}


def cell(console: Console, row: Mapping[str, Any]) -> None:
    """What came of training a cell: the last loss, or why there is none."""
    if row["status"] == "ran":
        told = f"loss {row['last']:.4g} after {row['steps']} steps, {row['seconds']:.1f} s"
    else:
        told = row["reason"]
    style = _ENDS[row["status"]]
    name = " + ".join(filter(None, (row["method"], row["loss"], row["plugin"]))) + f" {row['dims']}"
    console.print(Text.assemble((f" {row['status']:6}", style), f" {name}: {told}"), soft_wrap=True)


def cells(console: Console, rows: Rows) -> None:
    """The sum of a matrix of cells: losses by methods, 2-D and 3-D together."""
    marks = {"failed": Text("✗", "bold red"), "ran": Text("✓", "green"), "hole": Text("·", "yellow")}
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        found.setdefault(row["loss"], {}).setdefault(row["method"], []).append(row["status"])
    worst = {
        loss: {method: marks[min(ends, key=[*marks].index)] for method, ends in line.items()}
        for loss, line in found.items()
    }
    console.print()
    _by_method(console, "loss", worst, list(dict.fromkeys(row["method"] for row in rows)))
    counts = Counter(row["status"] for row in rows)
    say(console, f" {len(rows)} cells: " + ", ".join(f"{counts[name]} {name}" for name in _ENDS if counts[name]))


def _by_method(console: Console, what: str, lines: Mapping[str, Mapping[str, Text]], methods: Sequence[str]) -> None:
    """Print a mark for each name and method. Methods that do not fit side by side stand upright, in as many blocks as
    the width asks for.

    Args:
        console: to print on.
        what: the lines are.
        lines: by name the mark of each method, where it has one.
        methods: in order.
    """
    left = max(map(len, (what, *lines))) + 4
    upright = left + sum(len(method) + 2 for method in methods) > console.width
    room = max((console.width - left) // 3, 1) if upright else len(methods)
    size = -(-len(methods) // -(-len(methods) // room))  # blocks of like size
    for first in range(0, len(methods), size):
        part = methods[first : first + size]
        table = _table(what, *("\n".join(method) if upright else method for method in part))
        for name, marks in lines.items():
            table.add_row(Text(name), *(marks.get(method, Text("")) for method in part))
        if first:
            console.print()
        _indented(console, table)


# ------------------------------------------------------------------------------------------------- status, plan


def runs(console: Console, rows: Rows) -> None:
    """Where runs stand, under headings of recipe and budget; then the reasons of those that did not end well."""
    from sslbench.execution.display import progress_cells

    twins = Counter((*(row[part] for part in _JOB), row["seed"]) for row in rows)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        # Seeds that never began have nothing to tell each on its own.
        own = () if row["state"] == "pending" else (number,)
        job = tuple(row[part] for part in _JOB)
        line = lines.setdefault((*job, *own), {**row, "seeds": []})
        # The digest tells apart what differs in nothing else: an older version, other case lists.
        line["seeds"].append(f"{row['seed']}" + (f" {row['digest']}" if twins[(*job, row["seed"])] > 1 else ""))
    cells: list[list[Text]] = []
    for line in lines.values():
        step, loss, score, *pace = progress_cells(line["progress"])
        if line["state"] != "running":
            pace = ["", ""]
        step = "" if line["state"] == "finished" else step
        state = Text(line["state"], style=_STATES.get(line["state"], ""))
        cells.append([Text(", ".join(line["seeds"])), state, *map(Text, (step, loss, score, *pace))])
    headers = ["seed", "state", "step", "loss", "val. DSC", "it/s", "left"]
    _grouped(console, list(lines.values()), headers, cells)
    for row in rows:
        if row["error"]:
            console.print()
            say(console, f"{row['state']}: {row['run']}", _STATES.get(row["state"], ""))
            _indented(console, Text(row["error"]), 2)
    counts = {state: sum(row["state"] == state for row in rows) for state in _STATES}
    console.print()
    total = f"{len(rows)} run{'' if len(rows) == 1 else 's'}: "
    say(console, total + ", ".join(f"{count} {state}" for state, count in counts.items() if count))


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
    _grouped(console, lines, ["seed", "state", "plan"], cells)


def _grouped(console: Console, rows: Rows, headers: list[str], cells: list[list[Text]]) -> None:
    """Rows under a heading per recipe and budget, columns aligned over all of them.

    Columns without content are left out, and so are those of `_SPARE` where the terminal is too narrow.
    """
    used = [place for place in range(len(headers)) if any(line[place].plain for line in cells)]
    widths = {place: max(len(headers[place]), *(len(line[place].plain) for line in cells)) for place in used}

    def room() -> int:
        """What is left for the names, after an indent of one and two blanks behind each column."""
        return console.width - 3 - sum(widths[place] + 2 for place in used)

    least = min(_NARROWEST, max(len(row["cell"]) for row in rows))
    # Where it is tight a list of seeds folds first, then columns go, and last of all the names fold.
    seed = max(len(part) for line in cells for part in ["seed", *line[0].plain.split(", ")])
    if room() < least:
        widths[0] = max(seed, widths[0] + room() - least)
    for header in _SPARE:
        if room() < least and header in headers and headers.index(header) in used:
            used.remove(headers.index(header))
    broken = any(len(row["cell"]) > room() for row in rows)
    named = [_cell(row["cell"], broken) for row in rows]
    longest = max(len(line) for name in named for line in ["run", *name.plain.splitlines()])

    def table(lines: Iterable[int] = ()) -> Table:
        made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=not lines, header_style="bold")
        made.add_column("run", width=min(longest, max(12, room())), overflow="fold")
        for place in used:
            left = headers[place] in ("seed", "state", "plan")
            folds = headers[place] == "seed"
            made.add_column(headers[place], width=widths[place], no_wrap=not folds, justify="left" if left else "right")
        for line in lines:
            made.add_row(named[line], *(cells[line][place] for place in used))
        return made

    _indented(console, table())
    place: Callable[[int], tuple[str, str]] = lambda line: (rows[line]["recipe"], rows[line]["labeled"])  # noqa: E731
    for (recipe, labeled), lines in groupby(range(len(rows)), key=place):
        say(console, f"{recipe}/{labeled}", "italic")
        _indented(console, table(list(lines)))


def _cell(cell: str, broken: bool) -> Text:
    """Method, loss and plugin, and how the job differs from them, which may stand on a line of its own."""
    named, _, variant = cell.partition("~")
    text = Text(named)
    if variant:
        text.append("\n~" if broken else "~", style="dim").append(variant, style="dim")
    return text


# --------------------------------------------------------------------------------------------------------- show


def card(console: Console, facts: Mapping[str, Any]) -> None:
    """All that `show` tells of one name."""
    title = facts.get("title") or ""
    say(console, f"{facts['kind']} {facts['name']}" + (f": {title}" if title else ""), "bold")
    if facts.get("preset"):
        means = next(preset["means"] for preset in facts["presets"] if preset["name"] == facts["preset"])
        console.print(Text(f"as the preset {facts['preset']} = {means}"))
    for paragraph in facts["about"]:
        if paragraph:
            console.print()
            console.print(Text(paragraph))
    console.print()
    _CARDS.get(facts["kind"], _pluggable_card)(console, facts)


_SOURCES = {"label": "labels", "pseudo": "pseudo-labels"}


def _facts(console: Console, pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and texts in two columns; what is empty is left out."""
    table = _table("", "")
    table.show_header = False
    for name, text in pairs:
        if text not in ("", None, []):
            content = Text("\n").join(map(Text, text)) if isinstance(text, list) else Text(str(text))
            table.add_row(Text(name, style="dim"), content)
    if table.row_count:
        _indented(console, table)


def _pluggable_card(console: Console, facts: Mapping[str, Any], more: Iterable[tuple[str, Any]] = ()) -> None:
    pairs = [("paper", facts["paper"]), ("aliases", ", ".join(facts["aliases"])), *more, ("cost", facts["cost"])]
    if "needs_reference" in facts:
        needs = "yes: a method computes one for it" if facts["needs_reference"] else "no"
        pairs.append(("needs a reference", needs))
    if "changes" in facts:
        pairs.append(("weighs terms on", " and ".join(_SOURCES[source] for source in facts["changes"])))
    pairs.append(("presets", [f"{preset['name']} = {preset['means']}" for preset in facts["presets"]]))
    pairs.append(("version", facts["version"]))
    _facts(console, pairs)
    if facts["deviations"]:
        console.print()
        say(console, "Known deviations", "bold")
        _bullets(console, facts["deviations"])
    _options(console, facts)


def _bullets(console: Console, items: Iterable[str]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for item in items:
        table.add_row("-", Text(item))
    _indented(console, table)


def _options(console: Console, facts: Mapping[str, Any]) -> None:
    rows, kind, name = facts["options"], facts["kind"], facts["name"]
    if not rows:
        return
    how = {
        "network": "--set network.NAME=VALUE",
        "dataset": f"sslbench prepare {name} --set NAME=VALUE",
        "weighting": f"weighting={name}[NAME=VALUE] of any method, or --set method.weighting.NAME=VALUE",
    }.get(kind, f"{name}[NAME=VALUE] or --set {kind}.NAME=VALUE")
    console.print()
    console.print(Text.assemble(("Options", "bold"), f"  {how}"))
    preset = any(row["value"] != row["default"] for row in rows)
    table = _table("name", "default", *([facts["preset"]] if preset else []), "about", style="dim")
    for row in rows:
        default = "required" if row["required"] else value_text(row["default"])
        chosen = [Text(value_text(row["value"]) if row["value"] != row["default"] else "")] if preset else []
        about = [row["description"]] if row["description"] else []
        text = Text("\n").join([*map(Text, about), Text(row["type"], style="dim")])
        table.add_row(row["name"], Text(default), *chosen, text)
    _indented(console, table)


def _method_card(console: Console, facts: Mapping[str, Any]) -> None:
    views = [f"{_LONG[stream]}: {', '.join(views)}" for stream, views in facts["views"].items()]
    phases = ["they depend on the data"] if facts["phases"] is None else [_phase(phase) for phase in facts["phases"]]
    changes = [f"{path} = {value_text(value)}" for path, value in facts["defaults"].items()]
    more = [
        ("group", facts["group"]),
        ("predictors", ", ".join(facts["keys"])),
        ("learners", ", ".join(facts["learners"])),
        ("weightings", [f"{key}: {name}" for key, name in facts["weightings"].items()]),
        ("views", "; ".join(views)),
        ("phases", phases),
        ("recipe fields", changes or "as the recipe has them"),
        ("teachers", [_teacher(average) for average in facts["teachers"]]),
        ("exempt from", [f"{law}: {reason}" for law, reason in facts["exempt"].items()]),
    ]
    _pluggable_card(console, facts, more)


def _teacher(average: Mapping[str, Any]) -> str:
    decay = f"decay {average['decay']:g}"
    if average["warm_up"]:
        decay = f"decay min(1 - 1/({average['warm_up']} + 1), {average['decay']:g})"
    statistics = "batch statistics averaged too" if average["buffers"] else "batch statistics of its own inputs"
    when = f", in phase {average['phase']}" if average["phase"] else ""
    return f"{average['teacher']} follows {average['student']}, {decay}, {statistics}{when}"


_LONG = {"labeled": "labelled", "unlabeled": "unlabelled"}


def _phase(phase: Mapping[str, Any]) -> str:
    length = "the recipe's iterations" if phase["iterations"] is None else f"{phase['iterations']} iterations"
    return f"{phase['name']}: {length}, {' and '.join(_LONG[stream] for stream in phase['streams'])} patches"


def _network_card(console: Console, facts: Mapping[str, Any]) -> None:
    counts = [f"{row['count']:,} for {row['classes']} classes".replace(",", " ") for row in facts["parameters"]]
    more = [
        ("parameters", [*counts, "with one input channel and the options below"] if counts else facts["missing"]),
        ("sides", f"divisible by {facts['divisor']}"),
    ]
    _pluggable_card(console, facts, more)


def _recipe_card(console: Console, facts: Mapping[str, Any]) -> None:
    budgets = ", ".join(_budget(budget) for budget in facts["budgets"])
    pairs = [
        ("source", facts["source"]),
        ("extends", " -> ".join(facts["extends"])),
        ("budgets", budgets),
        ("seeds", ", ".join(map(str, facts["seeds"]))),
    ]
    _facts(console, pairs)
    if facts["notes"]:
        console.print()
        say(console, "Notes", "bold")
        _bullets(console, facts["notes"])
    console.print()
    _indented(console, _field_table((row["path"], row["value"], row["from"]) for row in facts["fields"]))
    for override in facts["overrides"]:
        console.print()
        when = " and ".join(f"{part} is {_among(value)}" for part, value in override["when"].items())
        console.print(Text.assemble(("Where ", "bold"), (when, "bold"), f"  ({override['from']})"))
        table = _table("field", "value")
        table.show_header = False
        for path, value in override["set"].items():
            table.add_row(path, Text(value_text(value)))
        _indented(console, table)


def _among(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def _budget(budget: Mapping[str, Any]) -> str:
    return " = ".join([budget["title"], *budget["aliases"]])


def _dataset_card(console: Console, facts: Mapping[str, Any]) -> None:
    pairs = [
        ("paper", facts["paper"]),
        ("official cases", facts["official_cases"]),
        ("source", facts["source"]),
        ("default grid", facts["default_grid"]),
        (
            "classes",
            ", ".join(
                f"{row['label']} {row['name']}" + (f" ({row['short']})" if row["short"] else "")
                for row in facts["classes"]
            ),
        ),
    ]
    _facts(console, pairs)
    if facts["access"]:
        console.print(Text("\nThe way to the official files", style="bold"))
        for number, step in enumerate(facts["access"], 1):
            _indented(console, Text(f"{number}. {step}"))
        if facts["remote"] and not facts["remote"]["tried"]:
            _indented(console, Text("The address behind --download is untried.", style="dim"))
    if facts["forms"]:
        console.print(Text("\nForms that --source takes", style="bold"))
        table = _table("form", "what", "serves", "voxel sizes", style="dim")
        for form in facts["forms"]:
            serves = ", ".join(form["preprocessings"]) if form["preprocessings"] else "all"
            table.add_row(form["name"], form["title"], serves, form["spacing"])
        _indented(console, table)
    for made in facts["preprocessings"]:
        console.print()
        told = ("name", "default", "hash", "description")
        title = Text.assemble(("Preprocessing ", "bold"), (made["name"], "bold"))
        title.append(f"  hash {made['hash']}" + (", the default" if made["default"] else ""))
        console.print(title)
        _indented(console, Text(made["description"]))
        _facts(console, ((name, value_text(value)) for name, value in made.items() if name not in told))
    for split in facts["splits"]:
        console.print()
        counts = f"{split['train']} train, {split['validation']} validation, {split['test']} test {split['unit']}s"
        console.print(Text.assemble(("Splits ", "bold"), (split["name"], "bold"), f"  {counts}"))
        if split["source"]:
            _indented(console, Text(split["source"]))
        if split["leaks"]:
            _indented(console, Text(f"leaks: {split['leaks']}", style="yellow"))
        table = _table("budget", "labelled", "folder", "also", style="dim")
        for budget in split["budgets"]:
            table.add_row(budget["title"], str(budget["labeled"]), budget["slug"], ", ".join(budget["aliases"]))
        _indented(console, table)
    _options(console, facts)


def _protocol_card(console: Console, facts: Mapping[str, Any]) -> None:
    console.print(Text(facts["caption"]))
    console.print()
    flat: dict[str, Any] = {}
    for name, value in facts["fields"].items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": content for inner, content in value.items()}
        else:
            flat[name] = value
    _facts(console, ((name, value_text(value)) for name, value in flat.items()))


_CARDS: dict[str, Callable[[Console, Mapping[str, Any]], None]] = {
    "method": _method_card,
    "network": _network_card,
    "recipe": _recipe_card,
    "dataset": _dataset_card,
    "protocol": _protocol_card,
}


# ------------------------------------------------------------------------------------------------------- doctor


def checks(console: Console, rows: Rows) -> None:
    """What `doctor` found, a line each, with the remedy below where there is one."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    area = ""
    for row in rows:
        if area and row["area"] != area:
            table.add_row()
        area = row["area"]
        text = Text(row["message"])
        if row["remedy"]:
            text.append(f"\n-> {row['remedy']}", style="bold")
        table.add_row(Text(row["status"], style=_STATUSES[row["status"]]), row["name"], text)
    _indented(console, table)


# -------------------------------------------------------------------------------------------------------- audit


def audit(console: Console, facts: Mapping[str, Any]) -> None:
    """What `audit` found: a line per finding, the lists, the classes."""
    subset = "" if facts["held"] == facts["official"] else f" of {facts['official']}"
    say(console, f"{facts['dataset']} ({facts['preprocessing']}): {facts['held']}{subset} cases", "bold")
    say(console, f" {facts['folder']}", "dim")
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in facts["findings"]:
        text = Text(row["message"])
        if row["remedy"]:
            text.append(f"\n-> {row['remedy']}", style="bold")
        table.add_row(Text(row["severity"], style=_SEVERITIES[row["severity"]]), Text(row["check"]), text)
    _indented(console, table)
    if facts["lists"]:
        console.print()
        _lists(console, facts["lists"])
    if facts["classes"]:
        console.print()
        _class_shares(console, facts)
    counts = Counter(row["severity"] for row in facts["findings"])
    named = [
        f"{counts[kind]} {kind}{'' if kind == 'ok' or counts[kind] == 1 else 's'}"
        for kind in reversed(_SEVERITIES)
        if counts[kind]
    ]
    console.print()
    say(console, f"{facts['status']}: {', '.join(named)}", _SEVERITIES[facts["status"]])


def _numbers(*headers: str) -> Table:
    """A table whose first column is a name, and all others are numbers."""
    table = _table(*headers)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    return table


def _lists(console: Console, rows: Rows) -> None:
    mixed = any(0 < row["mri"] < row["cases"] for row in rows)
    table = _numbers("list", "entries", "held", "cases", *(["MRI"] if mixed else []))
    for (name, unit), group in groupby(rows, key=lambda row: (row["splits"], row["unit"])):
        table.add_row(Text(f"splits {name}, {unit}s", style="italic"))
        for row in group:
            held = Text(str(row["held"]), style="" if row["held"] == row["official"] else "yellow")
            more = [str(row["mri"])] if mixed else []
            table.add_row(Text(f" {row['part']}"), str(row["official"]), held, str(row["cases"]), *more)
    _indented(console, table)


def _class_shares(console: Console, facts: Mapping[str, Any]) -> None:
    from sslbench.data.audit import percent

    drawn = ["of a patch", "patches with it"] if facts["patches"] else []
    table = _numbers("class", "of all voxels", *drawn, "cases with it")
    for row in facts["classes"]:
        patch = [percent(row["patch_share"]), percent(row["patches_with"])] if drawn else []
        name = Text(f"{row['label']} {row['name']}")
        table.add_row(name, percent(row["share"]), *patch, f"{row['cases']}")
    _indented(console, table)
    if drawn:
        size = " x ".join(map(str, facts["patch_size"]))
        text = f"{facts['patches']} random patches of {size}, drawn as recipe {facts['recipe']} draws them"
        _indented(console, Text(text, style="dim"))


# ------------------------------------------------------------------------------------------------------ evaluate

_COUNTS = ("missed", "spurious", "absent")  # of pairs of case and class


def scores(console: Console, rows: Rows) -> None:
    """What predictions score: class by class under one protocol; one line each of several runs under one protocol;
    or the conversion table, a block per run with a line per protocol."""
    alone = len({row["protocol"] for row in rows}) == 1
    if alone:
        if len(rows) == 1 and not rows[0]["why"]:
            _class_scores(console, rows[0])
        else:
            _score_lines(console, _shortened(console, rows), "subject", "cases")
        console.print()
        console.print(Text(rows[0]["caption"], style="dim"))
        return
    told: dict[str, Mapping[str, Any]] = {}
    for subject, group in groupby(rows, key=lambda row: str(row["subject"])):
        scored = list(group)
        most = max(scored, key=lambda row: int(row.get("expected", 0)))
        say(console, subject if most["why"] else f"{subject}: {_of_cases(most)} cases", "bold")
        lines = _without_twins(scored)
        _score_lines(console, lines, "name", "unit", "grid")
        told |= {row["protocol"]: row for row in lines if not row["why"]}
        console.print()
    for mark, meaning in _FOOTNOTES.items():
        if any(mark in row["name"] for row in told.values()):
            console.print(Text(f" {mark} {meaning}", style="dim"))
    table = _table("protocol", "empty masks score (overlap, distance)", style="dim")
    for name, row in told.items():
        table.add_row(Text(name), Text(row["empty"]))
    _indented(console, table)


_FOOTNOTES = {
    "=": "the slips of its released evaluator change nothing here",
    "†": "converted: the predictions were made on another grid than the paper's",
}


def _without_twins(rows: Rows) -> list[dict[str, Any]]:
    """The rows with a `name` that carries marks, and without released evaluators that score what their twins do."""
    named = {row["protocol"]: row for row in rows}
    same = {
        name: name.removesuffix("-released")
        for name, row in named.items()
        if row["slips"] and _alike(row, named.get(name.removesuffix("-released"), {}))
    }
    found: list[dict[str, Any]] = []
    for name, row in named.items():
        if name in same:
            continue
        plain = name.removesuffix("-released")
        below = found and plain != name and found[-1]["protocol"] == plain  # then its name need not be said again
        marks = ("†" if row["converted"] else "") + ("=" if name in same.values() else "")
        found.append({**row, "name": ("  -released" if below else name) + marks})
    return found


def _alike(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(row.get(key) == other.get(key) for key in ("why", "averages", *_COUNTS))


def _shortened(console: Console, rows: Rows) -> Rows:
    """The rows without what the names of their subjects begin with alike, which is said above them."""
    common = posixpath.commonpath([row["subject"] for row in rows]) if len(rows) > 1 else ""
    if not common:
        return rows
    say(console, common, "bold")
    return [{**row, "subject": row["subject"].removeprefix(f"{common}/")} for row in rows]


def _class_scores(console: Console, row: Mapping[str, Any]) -> None:
    from sslbench.reporting.labels import class_title

    say(console, f"{row['subject']}: {_of_cases(row)} cases, protocol {row['protocol']}", "bold")
    table = _numbers("", *(_metric_title(metric, row["unit"]) for metric in row["metrics"]), *_COUNTS)
    for line in row["classes"]:
        marks = [str(line[count]) for count in _COUNTS]
        table.add_row(Text(class_title(line["class"])), *(_number(line[m], m) for m in row["metrics"]), *marks)
    marks = [str(row[count]) for count in _COUNTS]
    table.add_row(Text("average", style="bold"), *(_number(row["averages"][m], m) for m in row["metrics"]), *marks)
    _indented(console, table)


def _score_lines(console: Console, rows: Rows, name: str, *facts: str) -> None:
    """A line per row: its name, averages, facts and counts; below, why others have none."""
    scored = [row for row in rows if not row["why"]]
    fullest = sorted(scored, key=lambda row: -len(row["metrics"]))
    metrics = list(dict.fromkeys(metric for row in fullest for metric in row["metrics"]))
    unit = "" if "unit" in facts else next((row["unit"] for row in scored), "")
    table = _numbers("run" if name == "subject" else "protocol", *(_metric_title(metric, unit) for metric in metrics))
    table.columns[0].no_wrap = False
    for fact in facts:
        table.add_column(fact, overflow="fold", justify="right" if fact == "cases" else "left")
    for header in _COUNTS:
        table.add_column(header, justify="right", no_wrap=True)
    for row in scored:
        numbers = [_number(row["averages"].get(metric), metric) for metric in metrics]
        told = [_of_cases(row) if fact == "cases" else row[fact] for fact in facts]
        table.add_row(Text(row[name]), *numbers, *map(Text, told), *(str(row[count]) for count in _COUNTS))
    if scored:
        _indented(console, table)
    for row in rows:
        if row["why"]:
            what = row["subject" if name == "subject" else "protocol"]
            console.print(Text.assemble(f" {what} does not apply: ", (row["why"], "yellow")), soft_wrap=True)


def _metric_title(metric: str, unit: str) -> str:
    from sslbench.reporting.labels import metric_style

    style = metric_style(metric)
    return style.title + (" %" if style.percent else f" {unit}" if unit else "")


def _number(value: float | None, metric: str) -> str:
    from sslbench.reporting.labels import metric_style

    return "--" if value is None else f"{value * (100 if metric_style(metric).percent else 1):.2f}"


def _of_cases(row: Mapping[str, Any]) -> str:
    """How many cases were scored, and of how many where that is fewer."""
    if row["why"]:
        return ""
    return f"{row['cases']}" if row["cases"] == row["expected"] else f"{row['cases']} of {row['expected']}"
