"""Layers of values: a recipe with those that it extends, and what is laid over it; later layers win."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sslbench.config import weightings
from sslbench.config.recipe import ABOUT, Override, Recipe, recipe_names, recipe_path
from sslbench.config.text import flatten, load_yaml, unflatten, validated
from sslbench.core.errors import UnknownNameError, UsageError

COMPONENTS = ("method", "loss", "plugin")  # the parts of a job that have options under their own prefix
JOB_PARTS = (*COMPONENTS, weightings.PART)  # those that a recipe may say something about, outside of its fields


class Layers:
    """Values by dotted path, and the layer that each came from."""

    def __init__(self, values: Mapping[str, Any] | None = None, origins: Mapping[str, str] | None = None) -> None:
        self.values, self.origins = dict(values or {}), dict(origins or {})

    def copy(self) -> Layers:
        """Copy the values, to lay more over."""
        return Layers(self.values, self.origins)

    def put(self, new: Mapping[str, Any], layer: str) -> None:
        """Lay values over what is there; groups are merged field by field. Another network or weighting takes none of
        the options that the one before had."""
        leaves = {weightings.respelt(path): value for path, value in flatten(new).items()}
        gone = [*weightings.replaced(self.values, leaves)]
        if leaves.get("network.name", self.values.get("network.name")) != self.values.get("network.name"):
            gone += [path for path in self.values if path.startswith("network.")]
        for path in gone:
            del self.values[path], self.origins[path]
        self.values.update(leaves)
        self.origins.update(dict.fromkeys(leaves, layer))


def read_recipe(
    name: str, chain: tuple[str, ...] = ()
) -> tuple[Layers, tuple[tuple[str, Override], ...], dict[str, Any]]:
    """Read a recipe file with those it extends: values, overrides with their layer (the base recipe's first), and what
    the recipe says about itself."""
    path = recipe_path(name)
    if not path.exists():
        raise UnknownNameError("recipe", name, recipe_names())
    found = path.stat()
    raw = _recipe_file(path, (found.st_mtime_ns, found.st_size))
    layers, about = Layers(), {}
    overrides: tuple[tuple[str, Override], ...] = ()
    if "extends" in raw:
        base = raw["extends"]
        if not isinstance(base, str) or base in (*chain, name):
            raise UsageError(f"{path}: extends takes the name of another recipe, not {base!r}")
        below, overrides, above = read_recipe(base, (*chain, name))
        layers, about = below.copy(), dict(above)
    about.update({key: raw[key] for key in ABOUT - {"overrides", "extends"} if key in raw} | {"name": path.stem})
    layers.put({key: value for key, value in raw.items() if key not in ABOUT}, f"recipe {path.stem}")
    listed = raw.get("overrides", [])
    if not isinstance(listed, list):
        raise UsageError(f"{path}: overrides is a list of `when` and `set`")
    for number, item in enumerate(listed, 1):
        override = validated(Override, item, f"{path}: override {number}")
        overrides += ((f"recipe {path.stem}, override {number}", override),)
    return layers, overrides, about


@lru_cache(maxsize=64)
def _recipe_file(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    return load_yaml(path)


def load_recipe(name: str) -> Recipe:
    """Load the recipe as written, before any method's defaults or overrides.

    Raises:
        UsageError: no such recipe, or a field that is unknown, missing or of the wrong type.
    """
    layers, overrides, about = read_recipe(name)
    return recipe_of(layers.values, about, overrides)


def recipe_of(
    values: Mapping[str, Any], about: Mapping[str, Any], overrides: tuple[tuple[str, Override], ...]
) -> Recipe:
    """Make a recipe of values by dotted path; those of a job's parts are passed over.

    Raises:
        UsageError: a field that is unknown, missing or of the wrong type.
    """
    fields = {path: value for path, value in values.items() if path.split(".")[0] not in JOB_PARTS}
    more = {"overrides": [override for _, override in overrides]}
    found: Recipe = validated(Recipe, unflatten(fields) | dict(about) | more, f"recipe {about['name']}", fields)
    return found


def under(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the values below a dotted path, by the rest of theirs."""
    prefix = part + "."
    return {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}
