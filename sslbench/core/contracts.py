"""The check of a component's class before anything is built of it: are its options typed, is what it must write there?

A contract (`sslbench.Method`, `sslbench.Loss`, ...) marks the methods that a class must write with `abstractmethod`,
and leaves the class attributes that it must set without a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from inspect import get_annotations, getattr_static
from typing import Any, get_args

from pydantic import BaseModel

from sslbench.core.errors import UsageError

# Members that a contract has, of which a class that leaves them all as they are would change nothing.
_ONE_OF = {
    "loss": ("ce_term", "dice_term", "supervised_term", "consistency_term"),
    "plugin": ("prior", "terms"),
}
# Attributes that a class must set unless it has a constructor of its own.
_FOR_CONSTRUCTOR = {"network": ("encoder_class", "decoder_class")}
# Attributes that a class must set unless it has a method of its own that says them.
_OR_METHOD = {"network": {"dims": "fit"}}
_NOTHING = object()


def check_component(kind: str, component: type) -> None:
    """Refuse a class that cannot serve as a component of its kind.

    Args:
        kind: `method`, `loss`, ...
        component: the class; what derives from no contract has its options checked alone.

    Raises:
        UsageError: its options would let a mistyped name pass, or members are missing that its contract asks for.
    """
    where = f"{kind} {component.__module__}.{component.__qualname__}"
    for model in _models(getattr(component, "Options", None)):
        if model.model_config.get("extra") != "forbid":
            hint = f"write `class {model.__name__}(sslbench.Options)`"
            raise UsageError(f"{where}: its options '{model.__name__}' would let a mistyped name pass", hint)
    contract = _contract(kind, component)
    if contract is None:
        return
    hint = f"sslbench.{contract.__name__} describes them; `sslbench new {kind} NAME` writes an example"
    lacking = missing_members(component)
    said_by = _OR_METHOD.get(kind, {})
    unsaid = [name for name, by in said_by.items() if _unchanged(component, contract, [by])]
    lacking += [name for name in unsaid if not hasattr(component, name)]
    if component.__init__ is contract.__init__:  # type: ignore[misc]
        lacking += _unchanged(component, contract, _FOR_CONSTRUCTOR.get(kind, ()))
    if lacking:
        raise UsageError(f"{where} lacks {_listed(lacking)}", hint)
    choice = _ONE_OF.get(kind, ())
    # A loss may also override what methods call: `ce` in the place of `ce_term`.
    members = [name for name in (*choice, *(name.removesuffix("_term") for name in choice)) if hasattr(contract, name)]
    if choice and len(_unchanged(component, contract, members)) == len(members):
        raise UsageError(f"{where} changes nothing: it writes none of {_listed(choice)}", hint)


def missing_members(component: type) -> list[str]:
    """Return the members that a class must have and lacks: attributes, then methods, in the order of their contract."""
    attributes = [
        name
        for base in reversed(component.__mro__)
        for name, annotation in get_annotations(base).items()
        if "ClassVar" in str(annotation).partition("[")[0] and getattr_static(component, name, _NOTHING) is _NOTHING
    ]
    methods = [
        name
        for base in reversed(component.__mro__)
        for name in vars(base)
        if getattr(getattr_static(component, name), "__isabstractmethod__", False)
    ]
    return list(dict.fromkeys(attributes + methods))


def _contract(kind: str, component: type) -> type | None:
    """Return the contract that a class derives from; None: it is the contract itself, or something else altogether."""
    ours = (base for base in component.__mro__[1:] if base.__module__.startswith("sslbench."))
    return next((base for base in ours if base.__name__ == kind.capitalize()), None)


def _unchanged(component: type, contract: type, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr_static(component, name) is getattr_static(contract, name)]


def _models(model: Any) -> Iterator[type[BaseModel]]:
    """Yield a model, and those that its fields hold."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        yield model
        for field in model.model_fields.values():
            for part in _parts(field.annotation):
                yield from _models(part)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
