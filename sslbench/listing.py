"""What `sslbench list` shows: every name that a job or a grid can use."""

from __future__ import annotations

import inspect
from typing import Any

from sslbench import config, registry
from sslbench.errors import UnknownNameError

# What users type, and the kind of the registry that it lists.
_KINDS = {
    "methods": "method",
    "losses": "loss",
    "plugins": "plugin",
    "weightings": "weighting",
    "datasets": "dataset",
    "networks": "network",
    "protocols": "protocol",
}


def listing(what: str) -> list[dict[str, Any]]:
    """The entries of a listing, each with `name`, `aliases`, `about`; presets stand behind what they configure, with
    `preset_of` and `set`.

    Raises:
        UnknownNameError: nothing of that name is listed.
    """
    if what in _KINDS:
        return _components(_KINDS[what])
    if what == "recipes":
        return [_recipe(name) for name in config.recipe_names()]
    if what == "grids":
        return [_grid(name, str(path)) for name, path in config.grid_files().items()]
    raise UnknownNameError("listing", what, [*_KINDS, "recipes", "grids"])


def _components(kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for entry in registry.entries(kind):
        if entry.preset_of:
            continue
        row: dict[str, Any] = {"name": entry.name, "aliases": list(entry.aliases), "about": _about(entry.target)}
        options = getattr(entry.target, "Options", None)
        if options is not None:
            row["options"] = {name: field.description or "" for name, field in options.model_fields.items()}
        rows.append(row)
        rows += [
            {
                "name": preset.name,
                "aliases": list(preset.aliases),
                "about": f"{entry.name}[{','.join(f'{key}={value}' for key, value in preset.set.items())}]",
                "preset_of": entry.name,
                "set": dict(preset.set),
            }
            for preset in sorted(registry.presets(kind, entry.name), key=lambda preset: preset.name)
        ]
    return rows


def _about(target: Any) -> str:
    """The first sentence of a component's docstring, or a value's own description."""
    text = getattr(target, "description", None) or getattr(target, "title", None)
    if inspect.isclass(target) and target.__doc__:
        text = target.__doc__
    return " ".join(str(text or "").strip().split("\n\n")[0].split())


def _recipe(name: str) -> dict[str, Any]:
    recipe = config.load_recipe(name)
    return {
        "name": name,
        "aliases": [],
        "about": recipe.description,
        "dataset": recipe.dataset,
        "protocol": recipe.protocol,
        "source": recipe.source,
    }


def _grid(name: str, path: str) -> dict[str, Any]:
    grid = config.load_grid(name)
    return {"name": name, "aliases": [], "about": grid.description, "file": path}
