"""The weightings of a job, an option of every method: how they are spelt, and what they resolve to.

`weighting=diffdw` names that of every learner, `weighting.a=distdw` that of one, `weighting=null` none. Options stand
in brackets, `weighting=cld[window=2]`, or on paths of their own, `weighting.window=2`, `weighting.a.momentum=0.9`. What
is said of one learner goes before what is said of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sslbench.config.text import compact, dumped, flatten, parse_component, unflatten
from sslbench.core import registry
from sslbench.core.errors import UsageError

OPTION = "weighting"

Spec = dict[str, Any]  # a weighting: its `name` and options by dotted path


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flat options of a method: its own, and those about weightings."""
    about = {path: value for path, value in options.items() if path.split(".")[0] == OPTION}
    return {path: value for path, value in options.items() if path not in about}, about


def learners_of(method: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that weightings serve in a method with these options; those that are not named have their defaults."""
    kind = registry.component("method", method)
    usual = {name: field.get_default(call_default_factory=True) for name, field in kind.Options.model_fields.items()}
    keys: tuple[str, ...] = kind.learners_of({**usual, **options})
    return keys


def replaced(below: Mapping[str, Any], above: Mapping[str, Any]) -> set[str]:
    """The paths of `below` about weightings that mean nothing under `above`: a name takes the place of another with its
    options, the name for all that of each."""
    named = {path.removesuffix(".name") for path in split(above)[1]}
    return {path for path in split(below)[1] if any(path == name or path.startswith(f"{name}.") for name in named)}


def read(options: Mapping[str, Any], keys: Sequence[str]) -> tuple[dict[str, Spec | None], dict[str, str]]:
    """What flat options say about the weighting of each learner.

    Args:
        options: of a method; those that are not about weightings are passed over.
        keys: of its learners.

    Returns:
        By learner what is said, None where that is to have none; and by `<key>.<option>` the path that said it.

    Raises:
        UsageError: no such weighting or learner.
    """
    found: dict[str, Spec | None] = {}
    sources: dict[str, str] = {}
    asked = []
    for path, value in split(options)[1].items():
        first, _, rest = path.removeprefix(OPTION).removeprefix(".").partition(".")
        one = first in keys
        option = rest if one else ".".join(filter(None, (first, rest)))
        asked.append((option not in ("", "name"), one, path, option, value))
    # Names before options, all learners before one.
    for is_option, one, path, option, value in sorted(asked, key=lambda item: item[:3]):
        for key in (path.split(".")[1],) if one else keys:
            if is_option:
                spec = found.get(key)
                if spec is None:
                    raise UsageError(
                        f"'method.{path}' is set, but '{key}' has no weighting",
                        f"a weighting is named by method.{OPTION}, or by method.{OPTION}.KEY; "
                        f"the learners are {', '.join(keys)}",
                    )
                said = {option: value}
            else:
                said = _named(path, value)
                spec = found[key] = {} if said else None
            (spec if spec is not None else {}).update(said)
            sources.update({f"{key}.{name}": path for name in said})
    return found, sources


def _named(path: str, spelt: Any) -> Spec:
    """`cld[window=2]` as name and options; nothing for None."""
    if spelt is None:
        return {}
    if not isinstance(spelt, str):
        raise UsageError(f"method.{path} takes the name of a weighting, not {spelt!r}")
    name, options = parse_component(spelt)
    entry = registry.get(OPTION, name)
    return {"name": entry.preset_of or entry.name, **flatten(entry.set), **flatten(options)}


def complete(spec: Spec) -> Spec:
    """The same with every option, typed.

    Raises:
        UsageError: an option that it has not, or a value that is not valid.
    """
    name = registry.get(OPTION, spec["name"]).name
    options = unflatten({path: value for path, value in spec.items() if path != "name"})
    return {"name": name} | flatten(dumped(registry.component(OPTION, name).Options, options, f"weighting {name}"))


def completed(options: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Spec]:
    """The weightings that flat options give each learner, complete."""
    return {key: complete(spec) for key, spec in read(options, keys)[0].items() if spec is not None}


def difference(chosen: Mapping[str, Spec], otherwise: Mapping[str, Spec], keys: Sequence[str]) -> dict[str, str | None]:
    """The options that make `chosen` of `otherwise`, as short as they can be.

    Args:
        chosen, otherwise: complete weightings by learner.
        keys: of all learners.
    """
    spelt = {key: spell(chosen[key]) if key in chosen else None for key in keys if key in (*chosen, *otherwise)}
    if len(spelt) == len(keys) and len({*spelt.values()}) == 1:
        return {OPTION: spelt[keys[0]]}
    return {f"{OPTION}.{key}": text for key, text in spelt.items()}


def spell(spec: Spec) -> str:
    """A complete weighting in one word: `cld[window=2]`, options that are its defaults left out."""
    plain = complete({"name": spec["name"]})
    options = [f"{path}={compact(value)}" for path, value in sorted(spec.items()) if value != plain[path]]
    return spec["name"] + (f"[{','.join(options)}]" if options else "")
