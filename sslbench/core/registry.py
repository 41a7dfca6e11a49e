"""One registry for everything that a job names: datasets, networks, methods, losses, plugins, protocols, ...

A component registers itself with `register`; the built-in ones are known by name beforehand (`BUILTIN`), so that
listing names and completing them in a shell imports nothing heavy. Third parties announce theirs through entry
points of the group `sslbench.<kind>` (for example `sslbench.method`), whose modules call `register` when loaded.

A class of one's own needs neither: `module:Class` means it wherever a name does. The module is looked for in the
working folder first, as `python -m` does, then among the installed packages.

- A class that its module registers is the entry of that name, however it is spelt.
- Any other goes by its reference, `my_methods:ICT`: that is its name in configurations and digests. Datasets and
  protocols have a `name` of their own and go by that.
- What has a name that only its module knows can be found again by others: `home` says where it is, for run
  directories to keep, and `keep_homes` makes that known to another process.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sslbench.core.builtin import BUILTIN
from sslbench.core.errors import SSLBenchError, UnknownNameError, UsageError
from sslbench.core.kept import kept

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

KINDS = ("dataset", "network", "method", "loss", "weighting", "plugin", "protocol")


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        kind: one of `KINDS`.
        name: the slug used on command lines, in YAML and in folder names.
        target: the registered class or value; None for a preset.
        aliases: other names that mean this one.
        preset_of: for a preset, the name whose options it sets.
        set: for a preset, those options.
        title: what tables call a preset that has a name of its own there, or a class that goes by its reference.
        group: the heading that a method's preset stands under, where it is not that of the method.
        about: for a preset, one line with its paper.
    """

    kind: str
    name: str
    target: Any = None
    aliases: tuple[str, ...] = ()
    preset_of: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    group: str = ""
    about: str = ""


@dataclass(frozen=True)
class Facts:
    """What tables say of a registered name.

    Attributes:
        name: the canonical one.
        base: what a preset configures; else the name.
        set: dotted paths of the options that a preset sets.
        title: of its own in tables, see `Entry`; may be empty.
        base_title, caution: of what `base` names; may be empty.
        group: the heading that a method stands under.
    """

    name: str
    base: str
    set: tuple[str, ...]
    title: str
    base_title: str
    group: str
    caution: str


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}

# (kind, name) -> the reference under which a name that only a stranger's module knows is found.
_homes: dict[tuple[str, str], str] = {}
_data_only: set[Path] = set()  # folders of `no_code_in`

# kind -> the class that a component of it derives from (a protocol: is an instance of).
_BASES = {
    "dataset": "sslbench.data.base:Dataset",
    "network": "sslbench.networks.base:Network",
    "method": "sslbench.methods.base:Method",
    "loss": "sslbench.losses.base:Loss",
    "weighting": "sslbench.losses.weighting.base:Weighting",
    "plugin": "sslbench.plugins.base:Plugin",
    "protocol": "sslbench.metrics.protocol:Protocol",
}

_NAME_OWNERS = ("dataset", "protocol")  # kinds whose components have a `name` of their own

# Files of the user's that a job can name: kind (`recipe`, `splits`) -> name -> path. See `sslbench.data.own.dataset`.
_files: dict[str, dict[str, Path]] = {}


def register(
    kind: str,
    name: str,
    aliases: Iterable[str] = (),
    preset_of: str | None = None,
    set: Mapping[str, Any] | None = None,
    **presentation: str,
) -> Callable[[T], T]:
    """Register the decorated class (or any value) under `name`.

    With `preset_of` a name for options is registered instead, at once, and there is nothing to decorate:
    `register("loss", "ga_labeled_only", preset_of="ga", set={"applies_to": "label"})`.

    Args:
        kind: one of `KINDS`.
        name: the slug; lower case, without spaces.
        aliases: other spellings.
        preset_of: the name that this one configures.
        set: the options that it sets.
        presentation: `title`, `group` and `about` of a preset, see `Entry`.

    Raises:
        SSLBenchError: an unknown kind, or a name that something else has.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of component", kind, KINDS)
    if ":" in name and name not in builtin(kind):
        raise SSLBenchError(f"the {kind} name '{name}' has a colon", "module:Class is a reference, not a name")

    def add(target: Any) -> None:
        entry = Entry(kind, name, target, tuple(aliases), preset_of, dict(set or {}), **presentation)
        for taken in (name, *entry.aliases):
            other = _lookup(kind, taken)
            # Loading a module twice (a reload, a test) registers the same thing again; anything else is a clash.
            if other is not None and not _same(other, entry):
                raise SSLBenchError(f"the {kind} name '{taken}' is taken by '{other.name}'")
            home = next((module for module, group in BUILTIN[kind].items() if taken in group), None)
            if home is not None and isinstance(target, type) and target.__module__ != home:
                raise SSLBenchError(f"the {kind} name '{taken}' is taken by sslbench's own")
        _check_class(kind, target)
        _entries[kind][name] = entry

    if preset_of is not None:
        add(None)

    def decorate(target: T) -> T:
        add(target)
        return target

    return decorate


def unregister(kind: str, name: str) -> None:
    """Forget a name: for tests and notebooks that register throw-away components."""
    _entries[kind].pop(name, None)


def names(kind: str) -> list[str]:
    """Return all names of a kind, presets included and aliases not, sorted; imports no component."""
    return sorted({*builtin(kind), *_entries[kind], *(point.name for point in _entry_points(kind))})


def builtin(kind: str) -> set[str]:
    """Return the names of a kind that are sslbench's own, presets included."""
    return {name for group in BUILTIN[kind].values() for name in group}


def get(kind: str, name: str) -> Entry:
    """Return the entry that a name, an alias or a reference `module:Class` means.

    Raises:
        UnknownNameError: nothing answers to the name; near names are suggested.
        UsageError: a reference to something that cannot be imported or is of another kind.
    """
    if ":" in name and not _is_family(kind, name):
        return _referred(kind, name)
    found = _lookup(kind, name)
    if found is None and (kind, name) in _homes:
        _referred(kind, _homes[kind, name])
        found = _lookup(kind, name)
    if found is None:
        for module, group in BUILTIN[kind].items():
            if name in group:
                import_module(module)
        for point in _entry_points(kind):
            if point.name == name:
                _load(kind, point)
        found = _lookup(kind, name)
    if found is None:
        found = next((entry for entry in entries(kind) if name in entry.aliases), None)
    if found is None:
        known = {alias for entry in entries(kind) for alias in entry.aliases} | {*names(kind)}
        raise UnknownNameError(kind, name, known)
    return found


def component(kind: str, name: str) -> Any:
    """Return the class or value that a name means; for a preset, that of what it configures."""
    entry = get(kind, name)
    return component(kind, entry.preset_of) if entry.preset_of else entry.target


def facts(kind: str, name: str) -> Facts:
    """Return what tables say of a name, an alias or a reference; sslbench's own are not imported for it, once they
    were.

    Raises:
        UnknownNameError, UsageError: as for `get`.
    """
    if _lookup(kind, name) is None and name in builtin(kind):
        told = _told().get(kind, {}).get(name)
        if told is not None:
            return Facts(**told | {"set": tuple(told["set"])})
    return _facts(get(kind, name))


@cache
def _told() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the facts of sslbench's own names by kind."""

    def tell() -> dict[str, dict[str, dict[str, Any]]]:
        return {kind: {name: asdict(_facts(get(kind, name))) for name in sorted(builtin(kind))} for kind in KINDS}

    return kept("facts", None, tell) or {}


def _facts(entry: Entry) -> Facts:
    base = entry.preset_of or entry.name
    target = component(entry.kind, base) if entry.preset_of else entry.target
    group, title, caution = (str(getattr(target, name, "")) for name in ("group", "title", "caution"))
    return Facts(entry.name, base, tuple(entry.set), entry.title, title, entry.group or group, caution)


def entries(kind: str) -> list[Entry]:
    """Return all entries of a kind, sorted by name; imports every component of that kind.

    A third party's component that cannot be loaded is left out with a warning: it must not stop the others.
    """
    for module in BUILTIN[kind]:
        import_module(module)
    for point in _entry_points(kind):
        try:
            _load(kind, point)
        except SSLBenchError as error:
            warnings.warn(str(error), stacklevel=2)
    return [_entries[kind][name] for name in sorted(_entries[kind])]


def presets(kind: str, base: str) -> list[Entry]:
    """Return the presets that configure `base`, those with most options first."""
    found = [entry for entry in entries(kind) if entry.preset_of == base]
    return sorted(found, key=lambda entry: -len(entry.set))


def home(kind: str, name: str) -> str | None:
    """Return the reference under which another process finds what a canonical name means; None where the name is
    enough, or where there is no such place (a class of a notebook)."""
    announced = {point.name for point in _entry_points(kind)}
    if ":" in name or name in builtin(kind) | announced | {*kept_files(kind)}:
        return None
    return _reference(component(kind, name)) or _homes.get((kind, name))


def keep_homes(homes: Mapping[str, Mapping[str, str]] | None) -> None:
    """Make known where names are found, by kind and name, as `home` said it; a module is imported once somebody asks
    for a name of it."""
    for kind, references in (homes or {}).items():
        _homes.update({(kind, name): reference for name, reference in references.items()})


def no_code_in(folder: Path) -> None:
    """Keep modules in a folder from being imported: it holds data or results, and a name that its files mention must
    not run what lies beside them. The working folder, where a user's modules are, stays what it is."""
    _data_only.add(folder.absolute())


def own_version(target: Any) -> int:
    """Return the `version` that a component declares itself: 1 for a class with none, whatever it derives from."""
    found = vars(target).get("version", 1) if isinstance(target, type) else getattr(target, "version", 1)
    return int(found)


def keep_files(kind: str, files: Mapping[str, Path]) -> None:
    """Make files known by name, in place of those of the kind that were known before."""
    _files[kind] = dict(files)


def kept_files(kind: str) -> Mapping[str, Path]:
    """Return the files that `keep_files` made known."""
    return _files.get(kind, {})


def _lookup(kind: str, name: str) -> Entry | None:
    found = _entries[kind].get(name)
    if found is None:
        found = next((entry for entry in _entries[kind].values() if name in entry.aliases), None)
    return found


def _is_family(kind: str, name: str) -> bool:
    """Tell whether names before this colon are sslbench's own (`monai:SegResNet`), not modules of somebody's."""
    family = name.partition(":")[0] + ":"
    return any(own.startswith(family) for own in builtin(kind))


def _same(left: Entry, right: Entry) -> bool:
    if (left.name, left.preset_of, left.set) != (right.name, right.preset_of, right.set):
        return False
    if isinstance(left.target, type) and isinstance(right.target, type):
        # A class that was loaded anew is another object, but the same thing.
        return (left.target.__module__, left.target.__qualname__) == (
            right.target.__module__,
            right.target.__qualname__,
        )
    return bool(left.target == right.target)


# ------------------------------------------------------------------------------------------------------- references


def _referred(kind: str, reference: str) -> Entry:
    """Return the entry of what a reference means: the registered one, or one made for it."""
    target = _imported(kind, reference)
    for entry in _entries[kind].values():
        if entry.preset_of is None and entry.target is target:
            _homes.setdefault((kind, entry.name), reference)
            return entry
    _check_kind(kind, reference, target)
    if kind in _NAME_OWNERS:
        name = getattr(target, "name", None)
        if not isinstance(name, str) or not name:
            raise UsageError(f"{reference} has no `name`", f"a {kind} goes by the name that it gives itself")
        try:
            register(kind, name)(target)
        except SSLBenchError as error:
            raise UsageError(f"{reference} cannot be called '{name}': {error.message}", error.hint) from error
        _homes[kind, name] = reference
        return _entries[kind][name]
    title = vars(target).get("title") or target.__name__
    return Entry(kind, _reference(target) or reference, target, title=str(title))


def _imported(kind: str, reference: str) -> Any:
    """Import the object of a reference.

    Raises:
        UsageError: it is not spelt as one, its module cannot be imported, or has no such attribute.
    """
    match = re.fullmatch(r"([\w.]+):([^\W\d]\w*(?:\.[^\W\d]\w*)*)", reference)
    if match is None:
        raise UsageError(f"cannot read '{reference}'", "a class of your own is spelt module:Class")
    found: Any = _module(match[1])
    where = f"the module {match[1]}"
    for attribute in match[2].split("."):
        if not hasattr(found, attribute):
            fitting = [name for name, value in vars(found).items() if _is(kind, value)]
            near = difflib.get_close_matches(attribute, fitting)
            raise UsageError(f"{where} has no {attribute}", f"did you mean {' or '.join(near)}?" if near else "")
        found = getattr(found, attribute)
        where = f"{attribute} in {where}"
    return found


def _module(name: str) -> Any:
    """Import a module of the user's, of the working folder or installed."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if name in sys.modules:
        return sys.modules[name]
    importlib.invalidate_caches()  # the file may be younger than what Python remembers of its folder
    _refuse_data(name)
    try:
        return import_module(name)
    except SSLBenchError as error:
        raise UsageError(f"{name} cannot be imported: {error.message}", error.hint) from error
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        reason = f"{name} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
        hint = ""
        if isinstance(error, ModuleNotFoundError) and name.endswith(".py"):
            hint = f"a module is named without .py: {name.removesuffix('.py')}"
        elif isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            hint = f"it is looked for in {folder} and among the installed packages"
        raise UsageError(reason, hint) from error


def _refuse_data(name: str) -> None:
    """Refuse a module that lies among data or results; the packages above it are looked at before they are imported.

    Raises:
        UsageError: it does.
    """
    here = Path.cwd()
    folders = [folder for folder in _data_only if folder not in (here, *here.parents)]
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:length]))
        except Exception:  # importing it says what is wrong
            return
        file = spec and spec.origin  # none of a folder without code of its own
        if file and any(Path(file).absolute().is_relative_to(folder) for folder in folders):
            raise UsageError(f"{name} is not imported: it lies among data or results", "keep your modules elsewhere")


def _check_kind(kind: str, reference: str, target: Any) -> None:
    """Refuse what does not derive from the base class of its kind.

    Raises:
        UsageError: it is something else.
    """
    base = _follow(_BASES[kind])
    if target is base:
        raise UsageError(f"{reference} is the base class itself", "name a class that derives from it")
    if _is(kind, target):
        _check_class(kind, target)
        return
    wanted = f"{base.__module__}.{base.__name__}"
    lacks = f"an instance of {wanted}" if kind == "protocol" else f"a class that derives from {wanted}"
    other = next((name for name in KINDS if _is(name, target)), None)
    found = f"a {other}" if other else f"of type {type(target).__name__}"
    raise UsageError(f"{reference} is no {kind}: it is {found}, not {lacks}")


def _check_class(kind: str, target: Any) -> None:
    """Refuse a class whose options take anything, or that lacks members of its contract; see `check_component`."""
    if isinstance(target, type):
        # Where there is a class, what this imports is loaded already; listing names imports nothing heavy.
        from sslbench.core.contracts import check_component

        check_component(kind, target)


def _is(kind: str, target: Any) -> bool:
    """Tell whether a value is a component of a kind."""
    base = _follow(_BASES[kind])
    if kind == "protocol":
        return isinstance(target, base)
    return isinstance(target, type) and issubclass(target, base)


def _reference(target: Any) -> str | None:
    """Return the reference that leads to a class from anywhere: that of its defining module; None where none does."""
    module, path = getattr(target, "__module__", None), getattr(target, "__qualname__", "")
    if module in (None, "__main__") or module not in sys.modules:
        return None
    try:
        found = _follow(f"{module}:{path}")
    except AttributeError:  # a class that a function made
        return None
    return f"{module}:{path}" if found is target else None


def _follow(reference: str) -> Any:
    """Import the object of a reference that is known to be right."""
    module, _, path = reference.partition(":")
    found: Any = import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found


# ----------------------------------------------------------------------------------------------------- entry points


@cache
def _entry_points(kind: str) -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points

    return tuple(entry_points(group=f"sslbench.{kind}"))


def _load(kind: str, point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:  # a stranger's broken package must not take ours down
        raise SSLBenchError(f"the {kind} '{point.name}' of {point.value} cannot be loaded: {error}") from error
