"""The pages of the site that are made from the code when it is built (`make docs`), and the hook that MkDocs calls.

`pages` is all of it: paths below `docs/` with their Markdown. What it says of a component is what `sslbench show` says,
of a field or an option what `--help` says, so none of it can be out of date. The pages are in memory alone.
"""

from __future__ import annotations

import csv
import gzip
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

DOCS = Path(__file__).parent
ROOT = DOCS.parent

# Files outside of docs/ that are pages of the site too.
ELSEWHERE = {
    "project/measured.md": "results/README.md",
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
}

_KINDS = {
    "method": "Every method",
    "loss": "Every loss",
    "weighting": "Every weighting",
    "plugin": "Every plugin",
    "network": "Every network",
    "dataset": "Every dataset",
    "protocol": "Every protocol",
}

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Examples?):")


def pages() -> dict[str, str]:
    """Return the generated pages: Markdown by path below `docs/`."""
    made = {f"reference/every-{kind}.md": _page(kind, title) for kind, title in _KINDS.items()}
    made["reference/command-line.md"] = _command_line()
    made["reference/recipe-fields.md"] = _recipe_fields()
    made["reference/every-recipe.md"] = _recipes()
    made["reference/python.md"] = _python()
    return made | {page: _mirror(page, source) for page, source in ELSEWHERE.items()}


def on_files(files: Any, config: Any) -> Any:
    """Hand the pages to MkDocs."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


# ---------------------------------------------------------------------------------------------------------- Markdown


def plain(text: Any) -> str:
    """Text as Markdown that shows it as it is; what stands in backticks is code, and an address a link."""
    parts = re.split(r"(`[^`]+`|https?://[^\s)]*[^\s).,;])", str(text))
    return "".join(
        re.sub(r"([\\*_\[\]|<>#])", _escaped, part) if number % 2 == 0 else part if part[0] == "`" else f"<{part}>"
        for number, part in enumerate(parts)
    )


def _escaped(match: re.Match[str]) -> str:
    return {"<": "&lt;", ">": "&gt;"}.get(match[1], "\\" + match[1])


def _code(value: Any) -> str:
    """A value as recipes and command lines spell it."""
    return f"`{_spelling(value)}`" if value != "" else ""


def _spelling(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_spelling, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_spelling(item)}" for key, item in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 8 else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells that are Markdown already; empty columns are left out, nothing where there are no rows."""
    cells = [[str(cell).replace("\n", " ") for cell in row] for row in rows]
    kept = [place for place in range(len(head)) if any(row[place] for row in cells)]
    if not kept:
        return ""
    lines = [[head[place] for place in kept], ["---"] * len(kept), *([row[place] for place in kept] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _names(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _mirror(page: str, source: str) -> str:
    """A file from outside of docs/ as a page: its links to pages become links of the site."""
    places = {(ROOT / file).resolve(): path for path, file in ELSEWHERE.items()}

    def moved(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if "://" in target or not target:
            return match[0]
        found = ((ROOT / source).parent / target).resolve()
        path = places.get(found) or str(found.relative_to(DOCS))
        return f"{match[1]}({'../' * page.count('/')}{path}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", moved, (ROOT / source).read_text(encoding="utf-8"))


# -------------------------------------------------------------------------------------------------------- components


def _page(kind: str, title: str) -> str:
    from sslbench.cli.listing import PLURALS, listing
    from sslbench.cli.show import describe

    plural = next(name for name, single in PLURALS.items() if single == kind)
    rows = [row for row in listing(plural) if "preset_of" not in row]
    told = [(row, describe(kind, row["name"])) for row in rows]
    overview = _table(
        (kind, "title", "group", "what it is"),
        (
            (
                f"[`{row['name']}`](#{anchor(row['name'])})",
                plain(facts.get("title") or ""),
                row.get("group", ""),
                _first(facts),
            )
            for row, facts in told
        ),
    )
    about = (
        f"Made from the code: what `sslbench show {kind} NAME` tells of each. `sslbench list {plural}` has the names "
        f"with those of presets; {_FURTHER[kind]}."
    )
    return _joined([f"# {title}", about, overview, *(_component(kind, facts) for _, facts in told)])


_FURTHER = {
    "method": "what holds for all of them, their laws and what a step costs are in [Methods](methods.md)",
    "loss": "what they have in common, and which published row is which, is in [Losses](losses.md)",
    "weighting": "how they are spelt, and which published row is which, is in [Weightings](weightings.md)",
    "plugin": "a plugin of your own begins with [the guide](../guides/extend.md#a-plugin)",
    "network": "which method takes which, and MONAI's, is in [Networks](networks.md)",
    "dataset": "the forms that `prepare` takes are in [Data forms](data-forms.md)",
    "protocol": "all of them side by side are in [Protocols](protocols.md)",
}


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it and the site (mkdocs.yml)."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")


def _first(facts: dict[str, Any]) -> str:
    """The first paragraph about a component, without the paper in its brackets."""
    return plain(re.sub(r"\s*\([^()]*\b(?:19|20)\d\d\b[^()]*\)", "", facts["about"][0]) if facts["about"] else "")


def _component(kind: str, facts: dict[str, Any]) -> str:
    more, tables = _PARTICULAR.get(kind, (_nothing, _nothing))
    return _joined(
        [
            f"## {facts['name']}",
            *map(plain, facts["about"]),
            _list([*_common(facts), *more(facts)]),
            *tables(facts),
            _deviations(facts.get("deviations", ())),
            _options(facts.get("options", ())),
            _presets(facts.get("presets", ())),
        ]
    )


def _nothing(facts: dict[str, Any]) -> Iterator[str]:
    yield from ()


def _common(facts: dict[str, Any]) -> Iterator[str]:
    if facts["aliases"]:
        yield f"Also called {_names(facts['aliases'])}"
    if facts.get("paper"):
        yield f"Paper: {plain(facts['paper'])}"
    if facts.get("version"):
        yield f"Version {facts['version']}"
    if facts.get("cost"):
        yield f"Cost of a step: {plain(facts['cost'])}"
    if facts.get("needs_reference"):
        yield "Needs a reference: the prediction that a learner is held against"
    if facts.get("changes"):
        targets = {"label": "labels", "pseudo": "pseudo-labels"}
        yield f"Changes the terms on {' and '.join(targets[end] for end in facts['changes'])}"


def _deviations(found: Sequence[str]) -> str:
    return _joined(["**Where it differs**", _list(map(plain, found))]).strip() if found else ""


def _options(found: Sequence[dict[str, Any]], what: str = "option") -> str:
    rows = (
        (
            _code(row["name"]),
            _code(row["type"]),
            "required" if row["required"] else _code(row["default"]),
            plain(row["description"]),
        )
        for row in found
    )
    return _table((what, "type", "default", "meaning"), rows)


def _presets(found: Sequence[dict[str, Any]]) -> str:
    rows = ((f"`{row['name']}`", _names(row["aliases"]), f"`{row['means']}`") for row in found)
    return _table(("preset", "also", "means"), rows)


def _method(facts: dict[str, Any]) -> Iterator[str]:
    yield f"Group in tables: {facts['group']}"
    yield f"Networks that predict: {_names(facts['predictors'])}"
    yield "Views: " + "; ".join(f"{stream} {_names(views)}" for stream, views in facts["views"].items())
    yield f"Terms that it asks a loss for: {_names(facts['term_kinds'])}"
    for each in facts["teachers"]:
        yield f"Averaged: `{each['teacher']}` follows `{each['student']}`, decay {each['decay']:g}"
    if facts["defaults"]:
        yield f"Changes of the recipe: {_spelt(facts['defaults'])}"
    if facts["caution"]:
        yield f"Said under every table with it: {plain(facts['caution'])}"
    for law, reason in facts["check_exemptions"].items():
        yield f"Declared to break the law `{law}`: {plain(reason)}"


def _evidence_of(facts: dict[str, Any]) -> Iterator[str]:
    yield "**Evidence**"
    yield _list(_evidence(facts["name"], [facts["name"], *(preset["name"] for preset in facts["presets"])]))


def _evidence(name: str, names: list[str]) -> Iterator[str]:
    tests = [path for path in sorted((ROOT / "tests" / "methods").glob("test_*.py")) if f'"{name}"' in _text(path)]
    if tests:
        yield f"Tests that name it: {_names(path.relative_to(ROOT) for path in tests)}"
    printed = sorted({place for each in names for place in _printed().get(each, ())})
    yield (
        f"Printed in {_names(printed)} (`sslbench published show`)" if printed else "In none of the transcribed tables"
    )
    trained = sorted({file for each in names for file in _trained().get(each, ())})
    if trained:
        yield f"Trained here, at short length: {_names(trained)} ([measured](../project/measured.md))"
    else:
        yield "No training of it is among the measured results"


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _printed() -> dict[str, set[str]]:
    """The published tables by the method that their rows describe."""
    from sslbench.config.published import published_tables

    found: dict[str, set[str]] = {}
    for key, table in published_tables().items():
        for row in table.rows:
            found.setdefault(row.method.partition("[")[0], set()).add(key)
    return found


@cache
def _trained() -> dict[str, set[str]]:
    """The files of measured results by method."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "results" / "measured").glob("*.csv*")):
        if path.name.endswith(".json"):
            continue
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for method in {row["method"] for row in csv.DictReader(lines)}:
                found.setdefault(method.partition("[")[0], set()).add(path.name)
    return found


def _network(facts: dict[str, Any]) -> Iterator[str]:
    yield f"Sides of a patch are divisible by {facts['divisor']}"
    counts = (f"{entry['count']:,} with {entry['classes']} classes" for entry in facts["parameters"])
    yield f"Parameters for one channel: {'; '.join(counts).replace(',', ' ')}"


def _dataset(facts: dict[str, Any]) -> Iterator[str]:
    yield plain(facts["title"])
    yield f"Cases: {facts['official_cases']}"
    yield from map(plain, facts["access"])


def _dataset_tables(facts: dict[str, Any]) -> Iterator[str]:
    classes = ((row["label"], plain(row["name"]), _code(row["short"])) for row in facts["classes"])
    yield _table(("label", "class", "short"), classes)
    kinds = ((_code(row["name"]), _code(row["hash"]), plain(row["description"])) for row in facts["preprocessings"])
    yield _table(("preprocessing", "hash", "what"), kinds)
    lists = (
        (
            _code(row["name"]),
            f"{row['train']} / {row['validation']} / {row['test']} {row['unit']}s",
            _names(budget["title"] for budget in row["budgets"]),
            plain(row["source"]),
            plain(row["leaks"]),
        )
        for row in facts["splits"]
    )
    yield _table(("splits", "train / validation / test", "budgets", "of", "leaks"), lists)


def _protocol(facts: dict[str, Any]) -> Iterator[str]:
    yield plain(facts["caption"])


# What is told of a kind beside that: entries of its list, and what stands below it.
_PARTICULAR: dict[str, tuple[Callable[..., Iterator[str]], Callable[..., Iterator[str]]]] = {
    "method": (_method, _evidence_of),
    "network": (_network, _nothing),
    "dataset": (_dataset, _dataset_tables),
    "protocol": (_nothing, _protocol),
}


# ------------------------------------------------------------------------------------------------ recipes, line, API


_FIELDS = """\
Made from the code. `--set PATH=VALUE` changes any of them, and so do `set` and `vary` of a [grid](grids.md); what
differs from the recipe is part of the name and digest of a run. `sslbench show recipe NAME` tells each value with the
layer that it came from: [every recipe](every-recipe.md). What recipes follow, and where not: [Recipes](recipes.md).

Options of the network (`network.base_filters`), the method, the loss (`loss.gamma`) and the plugin are theirs:
[networks](every-network.md), [methods](every-method.md), [losses](every-loss.md), [plugins](every-plugin.md)."""


def _recipe_fields() -> str:
    from sslbench.config import recipe
    from sslbench.config.fields import fields_of

    def table(model: Any, prefix: str = "") -> str:
        return _options(list(fields_of(model, prefix)), "field")

    parts = ["# Every field of a recipe", _FIELDS, table(recipe.Recipe)]
    parts += ["## tiles", table(recipe.TilesSpec, "tiles.")]
    parts += ["## overrides", "A list; what matches a job is set in it, the last match last.", table(recipe.Override)]
    first = f"`augment.weak` begins with at most one of {_names(get_args(recipe.Geometry))}; these may follow."
    parts += ["## Augmentations", f"{first} All but `three_of_six` may stand in `augment.strong`."]
    for shape in (*get_args(get_args(recipe.Distortion)[0]), recipe.ThreeOfSix):
        parts += [f"### {shape.model_fields['name'].default}", plain(_flat(shape.__doc__)), table(shape)]
    return _joined(parts)


def _recipes() -> str:
    from sslbench.cli.show import describe
    from sslbench.config.recipe import recipe_names

    parts = [
        "# Every recipe",
        "Made from the recipes: what `sslbench show recipe NAME` tells. The meaning of each field is in "
        "[Every field of a recipe](recipe-fields.md); fields at their defaults are left out here.",
    ]
    for name in recipe_names():
        facts = describe("recipe", name)
        rows = [
            (f"`{row['path']}`", _code(row["value"]), row["from"])
            for row in facts["fields"]
            if row["from"] != "default"
        ]
        changes = [
            (_spelt(override["when"]), _spelt(override["set"]), override["from"]) for override in facts["overrides"]
        ]
        parts += [
            f"## {name}",
            *map(plain, facts["about"]),
            _list(map(plain, facts["notes"])),
            _list(
                [
                    f"Source: {plain(facts['source'])}",
                    f"Seeds: {', '.join(map(str, facts['seeds']))}",
                    f"Budgets: {', '.join(_code(row['title']) for row in facts['budgets'])}",
                    *([f"Extends {_names(facts['extends'])}"] if facts["extends"] else []),
                ]
            ),
            _table(("field", "value", "from"), rows),
            _table(("where a job has", "it is set", "from"), changes),
        ]
    return _joined(parts)


def _spelt(values: dict[str, Any]) -> str:
    return _names(f"{path}={_spelling(value)}" for path, value in values.items())


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


def _command_line() -> str:
    import typer

    from sslbench.cli.app import app

    parts = [
        "# The command line",
        "Made from the code: what `sslbench COMMAND --help` tells. The commands by need, exit codes and environment "
        "variables are in [Commands](commands.md).",
    ]
    for name, command in _commands(typer.main.get_command(app), "sslbench"):
        parts += [f"## {name}", *map(plain, re.split(r"\n\s*\n", _help(command.help)))]
        arguments = " ".join(_argument(each) for each in command.params if each.param_type_name == "argument")
        parts.append(f"```text\n{name} [OPTIONS]{' ' + arguments if arguments else ''}\n```")
        panels: dict[str, list[tuple[str, str, str]]] = {}
        for each in command.params:
            if getattr(each, "hidden", False):
                continue
            if each.param_type_name == "argument":
                row = (f"`{_argument(each)}`", "", plain(_help(each.help)))
            else:
                row = (_names(each.opts), f"`{each.metavar}`" if each.metavar else "", plain(_help(each.help)))
            panels.setdefault(getattr(each, "rich_help_panel", None) or "", []).append(row)
        for title, rows in panels.items():
            parts += [f"**{title}**" if title else "", _table(("option", "value", "meaning"), rows)]
    return _joined(parts)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands that a user may type, those of groups too, with their full names."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _argument(param: Any) -> str:
    name = (param.metavar or param.name.upper()).strip("{}[]")
    dots = "..." if param.nargs != 1 else ""
    return f"{name}{dots}" if param.required else f"[{name}]{dots}"


def _help(text: str | None) -> str:
    """A help text without what escapes Rich's markup."""
    return (text or "").replace("\\[", "[")


def _python() -> str:
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    parts = [
        "# Python API: signatures and docstrings",
        "Made from the code, in the order of [the public names](api.md). Shapes: `B` batch, `C` classes with the "
        "background, `*S` = (H, W) or (D, H, W).",
    ]
    for module, names in re.findall(r"^\| `(sslbench[\w.]*)` \| (.+) \|$", page, re.MULTILINE):
        parts.append(f"## {module}")
        home = import_module(module)
        for name in re.findall(r"`(\w+)`", names):
            parts += [f"### {name}", *_documented(name, getattr(home, name))]
    return _joined(parts)


def _documented(name: str, target: Any) -> Iterator[str]:
    from pydantic import BaseModel

    from sslbench.config.fields import fields_of

    model = inspect.isclass(target) and issubclass(target, BaseModel)
    yield f"```python\n{'class ' if inspect.isclass(target) else ''}{name if model else _signature(name, target)}\n```"
    yield from _docstring(inspect.getdoc(target))
    if model:
        yield _options(list(fields_of(target)), "field")
    if inspect.isclass(target):
        own = (
            (key, getattr(value, "__func__", value)) for key, value in vars(target).items() if not key.startswith("_")
        )
        rows = ((f"`{_signature(key, value, 1000)}`", plain(_opening(value))) for key, value in own if callable(value))
        yield _table(("method", "what"), [row for row in rows if row[1]])


def _opening(target: Any) -> str:
    return _flat((target.__doc__ or "").split("\n\n")[0])


def _signature(name: str, target: Any, width: int = 88) -> str:
    """A call as one would write it: types by their last names, one argument a line where a line has no room."""
    try:
        found = inspect.signature(target)
    except (TypeError, ValueError):
        return name
    shown, star = [], False
    for each in found.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not star:
            shown.append("*")
        star |= each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        text = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "") + each.name
        if each.annotation is not each.empty:
            text += f": {_type(each.annotation)}"
        if each.default is not each.empty:
            text += f" = {'...' if callable(each.default) else repr(each.default)}"
        shown.append(text)
    end = "" if found.return_annotation is found.empty else f" -> {_type(found.return_annotation)}"
    line = f"{name}({', '.join(shown)}){end}"
    return line if len(line) <= width else f"{name}(\n    " + ",\n    ".join(shown) + f",\n){end}"


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def _docstring(text: str | None) -> Iterator[str]:
    """The parts of a docstring: paragraphs, and what its sections list."""
    for paragraph in re.split(r"\n\s*\n", text or ""):
        if section := _SECTION.match(paragraph):
            body = inspect.cleandoc("\n" + paragraph[section.end() :])
            items = re.split(r"\n(?=\S)", body) if section[1] in ("Args", "Attributes", "Raises") else [body]
            yield f"**{section[1]}**"
            yield _list(plain(_flat(item)) for item in items)
        elif all(line.startswith("    ") for line in paragraph.splitlines()):
            yield f"```text\n{inspect.cleandoc(paragraph)}\n```"
        elif re.match(r"- ", paragraph):
            yield _list(plain(_flat(item)) for item in re.split(r"(?:^|\n)- ", paragraph) if item.strip())
        else:
            yield plain(_flat(paragraph))
