"""The fields of a typed model with their types, limits and choices in words, for help and completion."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    pass


# ------------------------------------------------------------------------------------------------------- fields


def fields_of(model: type[BaseModel], prefix: str = "", instance: BaseModel | None = None) -> Iterator[dict[str, Any]]:
    """Yield the settable fields of a model, groups of fields opened into dotted paths.

    Each has `name`, `type` (for people), `choices` (empty where the values are not named), `default`, `required`
    and `description`.

    Args:
        model: the class.
        prefix: what its paths begin with.
        instance: one whose values are the defaults; None: those of the class.
    """
    for name, field in model.model_fields.items():
        required = instance is None and field.is_required()
        default = getattr(instance, name) if instance is not None else None
        if instance is None and not required:
            default = field.get_default(call_default_factory=True, validated_data={})
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            inner = default if isinstance(default, BaseModel) else None
            yield from fields_of(field.annotation, f"{prefix}{name}.", inner)
            continue
        yield {
            "name": prefix + name,
            "type": _type_text(field.annotation) + _limits(field),
            "choices": _choices(field.annotation),
            "default": default.model_dump(mode="json") if isinstance(default, BaseModel) else default,
            "required": required,
            "description": field.description or "",
        }


def _choices(annotation: Any) -> list[Any]:
    if annotation is bool:
        return [True, False]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


def _type_text(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(parts[0])
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " | ".join(_type_text(part) for part in parts)
    if origin in (list, tuple) and parts:
        if origin is tuple and ... not in parts and len(set(parts)) == 1:
            return f"{len(parts)} × {_type_text(parts[0])}"
        return "list of " + ", ".join(_type_text(part) for part in parts if part is not ...)
    if annotation is NoneType:
        return "none"
    return str(getattr(annotation, "__name__", annotation))


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in signs.items()
        if isinstance(getattr(limit, name, None), (int, float))
    ]
    return f" {', '.join(found)}" if found else ""
