"""A schedule made shorter or longer, `schedule.scale`: all fields that count iterations of it, in proportion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from sslbench.core.options import SCHEDULED

PATH = "schedule.scale"


def scheduled(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of a model's fields, and of those that they hold, that are `Iterations`."""
    for name, field in model.model_fields.items():
        if SCHEDULED in (*field.metadata, *_parts(field.annotation)):
            yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from scheduled(field.annotation, f"{prefix}{name}.")


def scaled(
    values: Mapping[str, Any], layers: Mapping[str, str], models: Mapping[str, type[BaseModel]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Apply the scale among values to the others: rounded, and at least 1 what was more than 0. A scale of 1 drops out,
    so that jobs without one are as they were before there was such a field.

    Args:
        values: complete, by dotted path.
        layers: by path, where each came from.
        models: by the path that the fields of each begin with, `method.`; of the recipe's own it is empty.

    Returns:
        Values and layers, those of what was scaled with the factor.
    """
    factor = values[PATH]
    if factor == 1:
        plain = {path: value for path, value in values.items() if path != PATH}
        return plain, {path: layers[path] for path in plain}
    paths = [path for prefix, model in models.items() for path in scheduled(model, prefix)]
    numbers = {path: values[path] for path in paths if type(values.get(path)) is int}
    new = {path: max(round(number * factor), 1) for path, number in numbers.items() if number}
    return {**values, **new}, {**layers, **{path: f"{layers[path]} × {factor:g}" for path in new}}


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)
