"""The card of one name: all that `show` tells of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import field_table, indented, table_of, value_text


def card(console: Console, facts: Mapping[str, Any]) -> None:
    """All that `show` tells of one name."""
    title = facts.get("title") or ""
    say(console, (f"{facts['kind']} {facts['name']}" + (f": {title}" if title else ""), "bold"))
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
    table = table_of("", "")
    table.show_header = False
    for name, text in pairs:
        if text not in ("", None, []):
            content = Text("\n").join(map(Text, text)) if isinstance(text, list) else Text(str(text))
            table.add_row(Text(name, style="dim"), content)
    if table.row_count:
        indented(console, table)


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
    _bullets(console, "Known deviations", facts["deviations"])
    _options(console, facts)


def _bullets(console: Console, title: str, items: Sequence[str]) -> None:
    """Print items under a title, after a gap; nothing where there are none."""
    if not items:
        return
    console.print()
    say(console, (title, "bold"))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for item in items:
        table.add_row("-", Text(item))
    indented(console, table)


def _options(console: Console, facts: Mapping[str, Any]) -> None:
    rows, kind, name = facts["options"], facts["kind"], facts["name"]
    if not rows:
        return
    how = {
        "network": "--set network.NAME=VALUE",
        "dataset": f"sslbench prepare {name} --set NAME=VALUE",
        "weighting": f"weighting={name}[NAME=VALUE] of any method, or --set weighting.NAME=VALUE",
    }.get(kind, f"{name}[NAME=VALUE] or --set {kind}.NAME=VALUE")
    console.print()
    console.print(Text.assemble(("Options", "bold"), f"  {how}"))
    preset = any(row["value"] != row["default"] for row in rows)
    table = table_of("name", "default", *([facts["preset"]] if preset else []), "about", style="dim")
    for row in rows:
        default = "required" if row["required"] else value_text(row["default"])
        chosen = [Text(value_text(row["value"]) if row["value"] != row["default"] else "")] if preset else []
        about = [row["description"]] if row["description"] else []
        text = Text("\n").join([*map(Text, about), Text(row["type"], style="dim")])
        table.add_row(row["name"], Text(default), *chosen, text)
    indented(console, table)


def _method_card(console: Console, facts: Mapping[str, Any]) -> None:
    views = [f"{_LONG[stream]}: {', '.join(views)}" for stream, views in facts["views"].items()]
    phases = ["they depend on the data"] if facts["phases"] is None else [_phase(phase) for phase in facts["phases"]]
    changes = [f"{path} = {value_text(value)}" for path, value in facts["defaults"].items()]
    more = [
        ("caution", facts["caution"]),
        ("group", facts["group"]),
        ("predictors", ", ".join(facts["predictors"])),
        ("learners", ", ".join(facts["learners"])),
        ("weightings", [f"{key}: {name}" for key, name in facts["weightings"].items()]),
        ("views", "; ".join(views)),
        ("phases", phases),
        ("recipe fields", changes or "as the recipe has them"),
        ("teachers", [_teacher(average) for average in facts["teachers"]]),
        ("exempt from", [f"{law}: {reason}" for law, reason in facts["check_exemptions"].items()]),
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
    _bullets(console, "Notes", facts["notes"])
    console.print()
    indented(console, field_table((row["path"], row["value"], row["from"]) for row in facts["fields"]))
    for override in facts["overrides"]:
        console.print()
        when = " and ".join(f"{part} is {_among(value)}" for part, value in override["when"].items())
        console.print(Text.assemble(("Where ", "bold"), (when, "bold"), f"  ({override['from']})"))
        table = table_of("field", "value")
        table.show_header = False
        for path, value in override["set"].items():
            table.add_row(path, Text(value_text(value)))
        indented(console, table)


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
            indented(console, Text(f"{number}. {step}"))
        if facts["remote"] and not facts["remote"]["tried"]:
            indented(console, Text("The address behind --download is untried.", style="dim"))
    if facts["forms"]:
        console.print(Text("\nForms that --source takes", style="bold"))
        table = table_of("form", "what", "serves", "voxel sizes", style="dim")
        for form in facts["forms"]:
            serves = ", ".join(form["preprocessings"]) if form["preprocessings"] else "all"
            table.add_row(form["name"], form["title"], serves, form["spacing"])
        indented(console, table)
    for made in facts["preprocessings"]:
        console.print()
        told = ("name", "default", "hash", "description")
        title = Text.assemble(("Preprocessing ", "bold"), (made["name"], "bold"))
        title.append(f"  hash {made['hash']}" + (", the default" if made["default"] else ""))
        console.print(title)
        indented(console, Text(made["description"]))
        _facts(console, ((name, value_text(value)) for name, value in made.items() if name not in told))
    for split in facts["splits"]:
        console.print()
        counts = f"{split['train']} train, {split['validation']} validation, {split['test']} test {split['unit']}s"
        console.print(Text.assemble(("Splits ", "bold"), (split["name"], "bold"), f"  {counts}"))
        if split["source"]:
            indented(console, Text(split["source"]))
        if split["leaks"]:
            indented(console, Text(f"leaks: {split['leaks']}", style="yellow"))
        table = table_of("budget", "labelled", "folder", "also", style="dim")
        for budget in split["budgets"]:
            table.add_row(budget["title"], str(budget["labeled"]), budget["slug"], ", ".join(budget["aliases"]))
        indented(console, table)
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
