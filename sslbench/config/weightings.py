"""The weighting of a job: its spellings, and the weightings of each learner that they resolve to.

As a part of a job its value is one for all learners, `diffdw`, or one each, `{a: diffdw, b: distdw}`; `none` takes away
what a preset or a recipe gives. As an option of a method, `cps[weighting=diffdw]` or `method.weighting.a`, it is only
spelt otherwise. `weighting` names that of every learner, `weighting.a` that of one. Options stand in brackets,
`cld[window=2]`, or on paths of their own, `weighting.window`, `weighting.a.momentum`. What is said of one learner goes
before what is said of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sslbench.config.text import compact, dumped, flatten, parse_component, unflatten
from sslbench.core import registry
from sslbench.core.errors import UsageError

PART = "weighting"
NONE = "none"

Spec = dict[str, Any]  # a weighting: its `name` and options by dotted path


def concerns(path: str) -> bool:
    """Tell whether a dotted path is about weightings."""
    return path == PART or path.startswith(f"{PART}.")


def respelt(path: str) -> str:
    """Spell a dotted path as a part of the job has it: `weighting.a` for `method.weighting.a`."""
    return path.removeprefix("method.") if concerns(path.removeprefix("method.")) else path


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flat values in two: those of other things, and those about weightings."""
    about = {path: value for path, value in values.items() if concerns(path)}
    return {path: value for path, value in values.items() if path not in about}, about


def flat(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Flatten a job's weighting by dotted path; empty where nothing is said."""
    return {} if value is None else flatten({PART: value})


def settings(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Spell it as run directories and tables spell it, as options of the method; null where there is none."""
    return {f"method.{path}": None if text == NONE else text for path, text in flat(value).items()}


def learners_of(method: Any, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that weightings serve in a method with these options; others have their defaults."""
    usual = {name: field.get_default(call_default_factory=True) for name, field in method.Options.model_fields.items()}
    keys: tuple[str, ...] = method.learners_of({**usual, **options})
    return keys


def replaced(below: Mapping[str, Any], above: Mapping[str, Any]) -> set[str]:
    """Return the paths of `below` about weightings that mean nothing under `above`: a name replaces another with its
    options, the name for all that of each."""
    named = {path.removesuffix(".name") for path in above if concerns(path)}
    if not named:  # as with almost all that is laid over something
        return set()
    return {path for path in below if any(path == name or path.startswith(f"{name}.") for name in named)}


def read(values: Mapping[str, Any], keys: Sequence[str]) -> tuple[dict[str, Spec | None], dict[str, str]]:
    """Read what flat values say about the weighting of each learner.

    Args:
        values: by dotted path; those that are not about weightings are passed over.
        keys: of the learners.

    Returns:
        By learner what is said, None where that is to have none; and by `<key>.<option>` the path that said it.

    Raises:
        UsageError: no such weighting or learner.
    """
    found: dict[str, Spec | None] = {}
    sources: dict[str, str] = {}
    asked = []
    for path, value in split(values)[1].items():
        first, _, rest = path.removeprefix(PART).removeprefix(".").partition(".")
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
                        f"'{path}' is set, but '{key}' has no weighting",
                        f"a weighting is named by {PART}, or by {PART}.KEY; the learners are {', '.join(keys)}",
                    )
                said = {option: value}
            else:
                said = _spec_of(path, value)
                spec = found[key] = {} if said else None
            (spec if spec is not None else {}).update(said)
            sources.update({f"{key}.{name}": path for name in said})
    return found, sources


def _spec_of(path: str, spelling: Any) -> Spec:
    """Parse `cld[window=2]` as name and options; nothing for `none`."""
    if spelling in (None, NONE):
        return {}
    if not isinstance(spelling, str):
        raise UsageError(f"{path} takes the name of a weighting, not {spelling!r}")
    name, options = parse_component(spelling)
    entry = registry.get(PART, name)
    return {"name": entry.preset_of or entry.name, **flatten(entry.set), **flatten(options)}


def complete(spec: Spec) -> Spec:
    """Complete a weighting with every option, typed.

    Raises:
        UsageError: an option that it has not, or a value that is not valid.
    """
    name = registry.get(PART, spec["name"]).name
    options = unflatten({path: value for path, value in spec.items() if path != "name"})
    return {"name": name} | flatten(dumped(registry.component(PART, name).Options, options, f"weighting {name}"))


def completed(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Spec]:
    """Return the weightings that flat values give each learner, complete."""
    return {key: complete(spec) for key, spec in read(values, keys)[0].items() if spec is not None}


def by_learner(values: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the weightings among resolved values."""
    found: dict[str, Spec] = {}
    for path, value in split(values)[1].items():
        _, key, option = path.split(".", 2)
        found.setdefault(key, {})[option] = value
    return found


def difference(chosen: Mapping[str, Spec], otherwise: Mapping[str, Spec], keys: Sequence[str]) -> str | dict[str, str]:
    """Return the shortest value of a job's weighting that makes `chosen` of `otherwise`.

    Args:
        chosen, otherwise: complete weightings by learner.
        keys: of all learners.
    """
    spelt = {key: spell(chosen[key]) if key in chosen else NONE for key in keys if key in (*chosen, *otherwise)}
    if len(spelt) == len(keys) and len({*spelt.values()}) == 1:
        return spelt[keys[0]]
    return spelt


def spell(spec: Spec) -> str:
    """Spell a complete weighting in one word: `cld[window=2]`, options that are its defaults left out."""
    plain = complete({"name": spec["name"]})
    options = [f"{path}={compact(value)}" for path, value in sorted(spec.items()) if value != plain[path]]
    return spec["name"] + (f"[{','.join(options)}]" if options else "")
