"""The components of a job as somebody wrote them: aliases, brackets and presets understood, classes found once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from sslbench.config import weightings
from sslbench.config.layers import COMPONENTS, Layers, under
from sslbench.config.recipe import ABOUT
from sslbench.config.text import flatten, parse_component, unflatten
from sslbench.core import registry
from sslbench.core.errors import UsageError

if TYPE_CHECKING:
    from sslbench.config.job import Job

_MISSING = object()


@dataclass(frozen=True)
class Part:
    """One component of a job.

    Attributes:
        kind: `method`, `loss` or `plugin`.
        name: canonical: the preset that its options make, else what they configure; None where the job has none.
        base: what the preset configures, or the name.
        component: the class that `base` names.
        preset: what the preset sets, by dotted path of the whole job.
        given: options beyond those, and of a method also the weightings that come with it, likewise.
    """

    kind: str
    name: str | None = None
    base: str | None = None
    component: Any = None
    preset: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)


def read_parts(job: Job) -> dict[str, Part]:
    """Read the components of a job by kind.

    Raises:
        UsageError: a name that nothing answers to, or a field that cannot be set.
    """
    for path in job.set:
        if path in COMPONENTS and not isinstance(job.set[path], Mapping):
            raise UsageError(f"'{path}' is a part of the job, not a field to set", f"name the {path} instead")
        if path.split(".")[0] in ABOUT:
            raise UsageError(f"'{path}' is what the recipe says about itself: it cannot be set")
    given = {weightings.respelt(path): value for path, value in flatten(job.set).items()}
    return {kind: read_part(kind, getattr(job, kind), given, job.weighting) for kind in COMPONENTS}


def read_part(
    kind: str,
    spelling: str | None,
    given: Mapping[str, Any] | None = None,
    weighting: str | Mapping[str, Any] | None = None,
) -> Part:
    """Read one component: `ga[gamma=0.75]` with what is set elsewhere.

    Args:
        kind: `method`, `loss` or `plugin`.
        spelling: as written; None: the job has none.
        given: all that is set, by dotted path; what is not of this component is passed over.
        weighting: that of the job, which a method takes in.

    Raises:
        UsageError: as for `read_parts`.
    """
    given = given or {}
    own = {path: value for path, value in given.items() if path.startswith(f"{kind}.")}
    if spelling is None:
        if own:
            raise UsageError(f"'{next(iter(own))}' is set, but the job has no {kind}")
        return Part(kind)
    name, bracketed = parse_component(spelling)
    entry = registry.get(kind, name)
    base = registry.get(kind, entry.preset_of) if entry.preset_of else entry
    above: list[Mapping[str, Any]] = [own]
    if kind == "method":
        above = [weightings.flat(weighting), {**own, **weightings.split(given)[1]}]
    layers = Layers()
    for layer in (_paths(kind, entry.set), _paths(kind, bracketed), *above):
        layers.put(layer, "")
    presets = registry.presets(kind, base.name)
    made = next((preset for preset in presets if _makes(preset, base.target, layers.values)), None)
    if made is None:
        return Part(kind, base.name, base.name, base.target, {}, layers.values)
    preset = _paths(kind, made.set)
    dropped = {*preset, *(weightings.split(layers.values)[1] if weightings.split(preset)[1] else ())}
    beyond = {path: value for path, value in layers.values.items() if path not in dropped}
    return Part(kind, made.name, base.name, base.target, preset, beyond)


def _paths(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a component by dotted path of the whole job."""
    return {weightings.respelt(f"{kind}.{path}"): value for path, value in flatten(options).items()}


def _makes(preset: registry.Entry, component: Any, values: Mapping[str, Any]) -> bool:
    """Tell whether flat values, with more or without, are those of a preset."""
    asked, weighted = weightings.split(_paths(preset.kind, preset.set))
    typed = _typed(component.Options, under(values, preset.kind))
    if any(typed.get(key, _MISSING) != value for key, value in under(asked, preset.kind).items()):
        return False
    if not weighted:
        return True
    keys = weightings.learners_of(component, typed)
    found = weightings.completed(values, keys)
    return all(found.get(key) == spec for key, spec in weightings.completed(weighted, keys).items())


def _typed(model: type[BaseModel], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return options as their types read them, `1` and `1.0` alike; what is not valid stays, to be refused later."""
    try:
        typed = flatten(model.model_validate(unflatten(options)).model_dump(mode="json"))
    except ValidationError:
        return options
    return {key: typed.get(key, value) for key, value in options.items()}
