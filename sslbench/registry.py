"""One registry for everything that a job names: datasets, networks, methods, losses, plugins, protocols, ...

A component registers itself with `register`; the built-in ones are known by name beforehand (`_BUILTIN`), so that
listing names and completing them in a shell imports nothing heavy. Third parties announce theirs through entry
points of the group `sslbench.<kind>` (for example `sslbench.method`), whose modules call `register` when loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from sslbench.errors import SSLBenchError, UnknownNameError, UsageError

T = TypeVar("T")

KINDS = ("dataset", "network", "method", "loss", "weighting", "plugin", "protocol")

# Protocols that published tables were made with; each has a twin with the slips of the released evaluator.
_PAPERS = (
    "ga", "dhc-2023", "dhc-2024", "magicnet", "ssl4mis", "metassl", "la-uamt", "la-bcp", "la-cobionet", "digestpath",
)  # fmt: skip

# kind -> module -> the names it registers (presets included). A test holds this index against the modules.
_BUILTIN: dict[str, dict[str, tuple[str, ...]]] = {
    "dataset": {
        "sslbench.data.acdc": ("acdc",),
        "sslbench.data.amos": ("amos",),
        "sslbench.data.digestpath": ("digestpath",),
        "sslbench.data.la": ("la",),
        "sslbench.data.synapse": ("synapse", "phantom"),
    },
    "network": {
        "sslbench.networks.diffusion_vnet": ("diffusion_vnet",),
        "sslbench.networks.monai_nets": (
            "monai:AttentionUnet",
            "monai:BasicUNet",
            "monai:BasicUNetPlusPlus",
            "monai:DynUNet",
            "monai:MedNeXt",
            "monai:SegResNet",
            "monai:SwinUNETR",
            "monai:UNETR",
            "monai:UNet",
        ),
        "sslbench.networks.mutual": ("unet_mcnet",),
        "sslbench.networks.perturbation": ("unet_cct",),
        "sslbench.networks.pyramid": ("unet3d_urpc", "unet_urpc"),
        "sslbench.networks.residual": ("resunet", "resvnet"),
        "sslbench.networks.unet": ("unet",),
        "sslbench.networks.unet3d": ("unet3d",),
        "sslbench.networks.vnet": ("vnet",),
    },
    "method": {
        "sslbench.methods.beta_fft": ("beta_fft",),
        "sslbench.methods.basak": ("basak",),
        "sslbench.methods.bidirectional_copy_paste": ("bcp",),
        "sslbench.methods.bidirectional_displacement": ("abd",),
        "sslbench.methods.co_bionet": ("cobionet",),
        "sslbench.methods.confidence_estimation": ("ceud",),
        "sslbench.methods.conflict_cross_view": ("ccvc",),
        "sslbench.methods.cross_consistency": ("cct",),
        "sslbench.methods.cross_pseudo_supervision": (
            "cps",
            "adsh",
            "cld",
            "crest",
            "dhc",
            "diffdw",
            "distdw",
            "simis",
        ),
        "sslbench.methods.decoupled_consistency": ("dcnet",),
        "sslbench.methods.depl": ("depl",),
        "sslbench.methods.desco": ("desco",),
        "sslbench.methods.dst": ("dst",),
        "sslbench.methods.fixmatch": ("fixmatch",),
        "sslbench.methods.genericssl": ("genericssl",),
        "sslbench.methods.magicnet": ("magicnet", "magicnet_released"),
        "sslbench.methods.mean_teacher": ("mt", "uamt"),
        "sslbench.methods.mutual_consistency": ("mcnet", "mcnet_plus"),
        "sslbench.methods.pyramid_consistency": ("urpc",),
        "sslbench.methods.r_drop": ("rdrop",),
        "sslbench.methods.ssnet": ("ssnet",),
        "sslbench.methods.skcdf": ("skcdf",),
        "sslbench.methods.students_discrepancy": ("sdcl",),
        "sslbench.methods.supervised": ("supervised",),
    },
    "loss": {
        "sslbench.losses.base": ("default",),
        "sslbench.losses.classic": (
            "focal",
            "topk_ce",
            "weighted_ce",
            "tversky",
            "focal_tversky",
            "generalized_dice",
        ),
        "sslbench.losses.gradient_aware": (
            "ga",
            "ga_labeled_only",
            "ga_unlabeled_only",
            "ga_gd",
            "ga_clse",
            "ga_dwe",
            "ga_gd_clse",
            "ga_gd_dwe",
            "ga_clse_dwe",
        ),
        "sslbench.losses.metassl": (
            "metassl",
            "metassl_lqh",
            "metassl_uqh",
            "metassl_conf_bh",
            "metassl_cons_bh",
            "metassl_released",
        ),
    },
    "weighting": {
        "sslbench.losses.weighting.difficulty": ("diffdw",),
        "sslbench.losses.weighting.distribution": ("crest", "distdw", "simis"),
        "sslbench.losses.weighting.sampling": ("cld",),
        "sslbench.losses.weighting.thresholds": ("adsh",),
    },
    "plugin": {"sslbench.plugins.scdl": ("scdl", "scdl_cdba_only")},
    "protocol": {
        "sslbench.metrics.published": (
            "native",
            "native-voxel",
            *(f"{name}{mode}" for name in _PAPERS for mode in ("", "-released")),
        ),
    },
}

# kind -> name -> why nothing here answers to a name that tables print.
_UNDESCRIBED: dict[str, dict[str, str]] = {
    "method": {
        "dca": "DCA (CVPR 2026): method not described in the source, whose supplement gives results alone",
    },
}


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
        title: for a preset with a name of its own in tables, that name.
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


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}

# Files of the user's that a job can name: kind (`recipe`, `splits`) -> name -> path. See `sslbench.data.own`.
_files: dict[str, dict[str, Path]] = {}


def register(
    kind: str,
    name: str,
    aliases: Iterable[str] = (),
    preset_of: str | None = None,
    set: Mapping[str, Any] | None = None,
    **told: str,
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
        told: `title`, `group` and `about` of a preset, see `Entry`.

    Raises:
        SSLBenchError: an unknown kind, or a name that something else has.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of component", kind, KINDS)

    def add(target: Any) -> None:
        entry = Entry(kind, name, target, tuple(aliases), preset_of, dict(set or {}), **told)
        for taken in (name, *entry.aliases):
            other = _lookup(kind, taken)
            # Loading a module twice (a reload, a test) registers the same thing again; anything else is a clash.
            if other is not None and not _same(other, entry):
                raise SSLBenchError(f"the {kind} name '{taken}' is taken by '{other.name}'")
            home = next((module for module, group in _BUILTIN[kind].items() if taken in group), None)
            if home is not None and isinstance(target, type) and target.__module__ != home:
                raise SSLBenchError(f"the {kind} name '{taken}' is taken by sslbench's own")
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
    """All names of a kind, presets included and aliases not, sorted; imports no component."""
    builtin = [name for group in _BUILTIN[kind].values() for name in group]
    return sorted({*builtin, *_entries[kind], *(point.name for point in _entry_points(kind))})


def get(kind: str, name: str) -> Entry:
    """The entry that a name or alias means.

    Raises:
        UnknownNameError: nothing answers to the name; near names are suggested.
        UsageError: a published name whose source does not say what it is.
    """
    found = _lookup(kind, name)
    if found is None:
        for module, group in _BUILTIN[kind].items():
            if name in group:
                import_module(module)
        for point in _entry_points(kind):
            if point.name == name:
                _load(kind, point)
        found = _lookup(kind, name)
    if found is None:
        found = next((entry for entry in entries(kind) if name in entry.aliases), None)
    if found is None and name.lower() in _UNDESCRIBED.get(kind, {}):
        raise UsageError(_UNDESCRIBED[kind][name.lower()], "its published row can stand in a table, no run can")
    if found is None:
        known = {alias for entry in entries(kind) for alias in entry.aliases} | {*names(kind)}
        raise UnknownNameError(kind, name, known)
    return found


def component(kind: str, name: str) -> Any:
    """The class or value that a name means; for a preset, that of what it configures."""
    entry = get(kind, name)
    return component(kind, entry.preset_of) if entry.preset_of else entry.target


def entries(kind: str) -> list[Entry]:
    """All entries of a kind, sorted by name; imports every component of that kind.

    A third party's component that cannot be loaded is left out with a warning: it must not stop the others.
    """
    for module in _BUILTIN[kind]:
        import_module(module)
    for point in _entry_points(kind):
        try:
            _load(kind, point)
        except SSLBenchError as error:
            warnings.warn(str(error), stacklevel=2)
    return [_entries[kind][name] for name in sorted(_entries[kind])]


def presets(kind: str, base: str) -> list[Entry]:
    """The presets that configure `base`, those with most options first."""
    found = [entry for entry in entries(kind) if entry.preset_of == base]
    return sorted(found, key=lambda entry: -len(entry.set))


def keep_files(kind: str, found: Mapping[str, Path]) -> None:
    """Make files known by name, in place of those of the kind that were known before."""
    _files[kind] = dict(found)


def kept_files(kind: str) -> Mapping[str, Path]:
    """The files that `keep_files` made known."""
    return _files.get(kind, {})


def _lookup(kind: str, name: str) -> Entry | None:
    found = _entries[kind].get(name)
    if found is None:
        found = next((entry for entry in _entries[kind].values() if name in entry.aliases), None)
    return found


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


@cache
def _entry_points(kind: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"sslbench.{kind}"))


def _load(kind: str, point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:  # a stranger's broken package must not take ours down
        raise SSLBenchError(f"the {kind} '{point.name}' of {point.value} cannot be loaded: {error}") from error
