"""Readers of what people write down: YAML files, `a.b=c`, `name[option=value]`, dotted paths."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.files import read_text


def load_yaml(path: Path) -> dict[str, Any]:
    """Load the mapping in a YAML file, read by the safe loader.

    Raises:
        UsageError: the file cannot be read as YAML, repeats a key, or holds no mapping.
    """
    try:
        value = yaml.load(read_text(path), Loader=_Loader)
    except RecursionError as error:
        raise UsageError(f"{path} is not valid YAML: it is nested too deeply") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a date or tag that cannot be built is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{where} is not valid YAML: {problem}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no mapping of fields{': it is empty' if value is None else ''}")
    return value


class _Loader(yaml.SafeLoader):
    """The safe loader, with two of YAML's traps closed."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for place, _ in node.value:
            key = self.construct_object(place, deep=True)
            if not isinstance(key, Hashable):
                continue  # the loader says what is wrong with it
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", place.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads as the same."""


# YAML 1.1 reads 1e-5 as a string: every number of this field would need a decimal point.
for _way in (_Loader, _Dumper):
    _way.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def yaml_text(value: Any, flow: bool | None = None, width: int = 110) -> str:
    """Write a value as YAML that `load_yaml` reads as the same, in the order that it has.

    Args:
        value: of plain types.
        flow: everything in brackets (True), nothing (False), or what holds no more groups (None).
        width: of a line.
    """
    how: dict[str, Any] = {"default_flow_style": flow, "sort_keys": False, "width": width, "allow_unicode": True}
    return str(yaml.dump(value, Dumper=_Dumper, **how))


def parse_value(text: str) -> Any:
    """Parse the value of an option as typed on a command line: `0.75`, `true`, `[1, 2]`, `name`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"cannot read the value {text!r}") from error


def compact(value: Any) -> str:
    """Spell the value of an option without blanks, as folder names and variants have it: `0.75`, `[1,2]`, `name`."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def counted(number: int, noun: str) -> str:
    """A number of things: `1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def gib(count: float) -> str:
    """Bytes in GiB, for people, in three digits: `3.94`, `39.4`, `394`."""
    number = count / 2**30
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


def first_few(names: Sequence[str], count: int = 5) -> str:
    """Spell out the first of some names; `...` stands for the others."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def parse_set(items: Iterable[str]) -> dict[str, Any]:
    """Parse `a.b=c` strings as dotted paths and values."""
    return _pairs(items, "--set takes PATH=VALUE, not '{}'", "for example --set optimizer.lr=0.005")


def _pairs(items: Iterable[str], message: str, hint: str) -> dict[str, Any]:
    found = {}
    for item in items:
        path, equals, value = item.partition("=")
        if not equals or not path.strip():
            raise UsageError(message.format(item), hint)
        found[path.strip()] = parse_value(value)
    return found


def parse_component(text: str) -> tuple[str, dict[str, Any]]:
    """Parse `ga[gamma=0.75,k=5]` as its name and options; in place of a name `module:Class` may stand.

    Raises:
        UsageError: brackets that do not close, or an item that is no `key=value`.
    """
    hint = "write a name or module:Class, or name[option=value,option=value]"
    match = re.fullmatch(r"\s*([\w.&+-]+(?::[\w.]+)?)\s*(?:\[(.*)\])?\s*", text, flags=re.DOTALL)
    if not match:
        raise UsageError(f"cannot read '{text}'", hint)
    return match[1], _pairs(split_outside_brackets(match[2] or ""), f"cannot read '{{}}' in '{text}'", hint)


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas that stand outside brackets: `cps,ga[k=5,gamma=1]` are two items."""
    parts, depth, start = [], 0, 0
    for position, sign in enumerate(text):
        depth += (sign in "[{(") - (sign in "]})")
        if sign == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths; lists and empty mappings are leaves."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, path + "."))
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested mappings.

    Raises:
        UsageError: a path that goes through a plain value.
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, last = path.split(".")
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UsageError(f"'{path}' is set, but '{key}' is a value, not a group of fields")
        if isinstance(node.get(last), dict):
            raise UsageError(f"field {path}: a group of fields, not {value!r}")
        node[last] = value
    return tree


def validated(model: type[Any], data: Any, where: str, known: Iterable[str] = ()) -> Any:
    """Return `model(**data)`; its first fault raises one line, with near names for an unknown key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A misspelt field is also a missing one: say what was written, not what was meant.
        fault = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        # pydantic adds the branches of a union and the names of validators to the path.
        parts = [str(part) for part in fault["loc"] if re.fullmatch(r"\w+", str(part))]
        path = ".".join(part for part in parts if part not in ("int", "float", "str", "bool"))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if fault["type"] == "extra_forbidden":
            raise UnknownNameError(f"field in {where}:", path, [*_paths(model), *known]) from None
        if fault["type"] == "missing":
            raise UsageError(f"{where}: the field '{path}' is missing{more}") from None
        message = fault["msg"].removeprefix("Value error, ")
        given = "" if isinstance(fault["input"], Mapping | BaseModel) else f", not {fault['input']!r}"
        place = f"{where}: {path}" if path else where
        raise UsageError(f"{place}: {message[:1].lower()}{message[1:]}{given}{more}") from None


def dumped(model: type[BaseModel], data: Any, where: str) -> dict[str, Any]:
    """Dump all fields of a model as JSON has them. Twice: a default is not validated, and 10 is to be what 10.0 is."""
    once = validated(model, data, where)
    return dict(model.model_validate(once.model_dump()).model_dump(mode="json"))


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted path of a model, for suggestions."""
    for name, info in model.model_fields.items():
        yield prefix + name
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _paths(part, f"{prefix}{name}.")
