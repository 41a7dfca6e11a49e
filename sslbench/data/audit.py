"""`sslbench audit`: what is in a prepared dataset, how rare its classes are, and which of its lists can be trusted.

Every file is read and held against its hash, one case at a time. Nothing is written.
Class shares are counted on the stored grid, in all held cases, as patches are cut there: over all voxels together,
and in random patches as the sampler of a recipe draws them, labelled and unlabelled cases alike.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sslbench.config.splits import LEAKING, Splits, expand, load_splits, split_files
from sslbench.core import registry
from sslbench.core.errors import DataError, SSLBenchError, UsageError
from sslbench.core.files import read_json
from sslbench.core.settings import data_dir as data_folder
from sslbench.data.files.volumes import MAX_SPACING_MM
from sslbench.data.own.dataset import load_all
from sslbench.data.store import Case, Store, case_files, command, lacking, sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sslbench.config.recipe import Recipe

Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("ok", "note", "warning", "error")

PATCHES = 32  # per case (3-D); of slices and tiles (2-D) each is drawn `_DRAWS` times
_DRAWS = 2
_AT_ONCE = 32  # slices or tiles, so that memory stays that of a few volumes
_SPACING_FACTOR = 4.0  # a voxel side so many times longer or shorter than the dataset's median is told
_SCALED = 1e-3  # how far an image may be outside of [0, 1] where it was scaled to that


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what: `files`, `voxels`, `labels`, ..., `splits <name>`.
        severity: `ok`; `note`, worth knowing; `warning`, perhaps not what was meant; `error`, not to be trained on.
        message: in one line.
        cases: all ids that it is about; the message names some.
        remedy: what to do; empty where there is nothing to do.
    """

    check: str
    severity: Severity
    message: str
    cases: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class ClassRow:
    """How much there is of a class.

    Attributes:
        label, name, short: of the class; 0 is the background.
        voxels, share: on the stored grid, in all cases together; `share` of all voxels.
        patch_share, patches_with: mean share of a random patch, and the share of patches with any of it; None
            where no recipe says what a patch is.
        cases: that have the class.
    """

    label: int
    name: str
    short: str
    voxels: int
    share: float
    patch_share: float | None
    patches_with: float | None
    cases: int


@dataclass(frozen=True)
class ListRow:
    """How much of a list is held.

    Attributes:
        splits: whose list.
        part: `train`, `val`, `test`, or the title of a label budget.
        unit: what an entry is.
        official, held: entries of the list, and those with a prepared case.
        cases: prepared cases of them.
        mri: how many of `cases` are MRI scans.
    """

    splits: str
    part: str
    unit: str
    official: int
    held: int
    cases: int
    mri: int


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        folder: the cache.
        held, official: prepared cases, and those of the official release.
        findings: in the order of the checks.
        classes: a row per class, background first; empty where no label could be read.
        lists: a row per list and budget of the splits that were looked at.
        recipe, patch_size, patches: whose sampler drew the patches, their size and number; "", () and 0 for none.
    """

    dataset: str
    preprocessing: str
    folder: Path
    held: int
    official: int
    findings: tuple[Finding, ...]
    classes: tuple[ClassRow, ...]
    lists: tuple[ListRow, ...]
    recipe: str = ""
    patch_size: tuple[int, ...] = ()
    patches: int = 0

    @property
    def worst(self) -> Severity:
        """The worst severity of all findings."""
        return max((finding.severity for finding in self.findings), key=SEVERITIES.index, default="ok")

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, with `status` for `worst`."""
        return {"status": self.worst, **asdict(self), "folder": str(self.folder)}


@dataclass
class _Looked:
    """What reading one case showed: trouble by check, and its classes."""

    trouble: dict[str, str] = field(default_factory=dict)
    voxels: NDArray[np.int64] | None = None
    patch_share: float | NDArray[np.float64] = 0.0
    patches_with: int | NDArray[np.int64] = 0
    patches: int = 0


def audit(
    name: str,
    *,
    preprocessing: str | None = None,
    splits: str | None = None,
    recipe: str | None = None,
    data_dir: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Look at a prepared dataset and its lists. A few volumes are in memory at a time.

    Args:
        name: of the dataset.
        preprocessing: name of a preprocessing; the dataset's first by default.
        splits: name of the lists to look at; by default all that the dataset has.
        recipe: whose sampler draws patches; by default the first that trains on this preprocessing.
        data_dir: folder of prepared datasets; that of `settings.data_dir` by default.
        progress: told each case before it is read.

    Raises:
        UsageError: an unknown name, or a dataset that is not prepared.
        DataError: a cache that cannot be opened.
    """
    root = data_folder(data_dir)
    load_all(root)
    kind = registry.component("dataset", name)
    preprocessing = preprocessing or next(iter(kind.preprocessings))
    store = Store.open(root, kind.name, preprocessing)
    wanted = list(split_files(kind.name)) if splits is None else [splits]
    if splits is not None and splits not in split_files(kind.name):
        load_splits(kind.name, splits)  # refuses an unknown name
    chosen = _recipe(store, recipe)
    looked = {}
    for number, id in enumerate(store.cases):
        if progress is not None:
            progress(id)
        looked[id] = _look(store, id, chosen, number)

    findings = [*_holding(store), *_content(store, looked), *_spacing(store), *_duplicates(store)]
    findings += [*_modalities(store), *_classes(store, looked)]
    lists: list[ListRow] = []
    for each in wanted:
        found, rows = _lists(store, each, looked, asked=splits is not None)
        findings += found
        lists += rows
    if chosen is None:
        message = f"no recipe trains on {kind.name} ({preprocessing}): class shares per patch are left out"
        findings.append(Finding("patches", "note", message, remedy="name one with --recipe"))
    return AuditReport(
        dataset=kind.name,
        preprocessing=preprocessing,
        folder=store.folder,
        held=len(store.cases),
        official=store.official,
        findings=tuple(findings),
        classes=_class_rows(store, looked),
        lists=tuple(lists),
        recipe=chosen.name if chosen else "",
        patch_size=tuple(chosen.patch_size) if chosen else (),
        patches=sum(case.patches for case in looked.values()),
    )


def _recipe(store: Store, name: str | None) -> Recipe | None:
    """The recipe whose sampler draws the patches."""
    from sslbench.config.layers import load_recipe
    from sslbench.config.recipe import recipe_names

    dataset, preprocessing = store.dataset.name, store.preprocessing
    if name is not None:
        recipe = load_recipe(name)
        if (recipe.dataset, recipe.preprocessing) != (dataset, preprocessing):
            trains = f"{recipe.dataset} ({recipe.preprocessing})"
            raise UsageError(f"recipe {name} trains on {trains}, not on {dataset} ({preprocessing})")
        return recipe
    for known in sorted(recipe_names(), key=lambda known: (len(known), known)):
        recipe = load_recipe(known)
        if (recipe.dataset, recipe.preprocessing) == (dataset, preprocessing):
            return recipe
    return None


# ------------------------------------------------------------------------------------------------------ one case


def _look(store: Store, id: str, recipe: Recipe | None, number: int) -> _Looked:
    """Read a case whole: hashes, voxels, labels, and patches of it."""
    case, seen = store.cases[id], _Looked()
    scaled = store.dataset.preprocessings[store.preprocessing].scale in ("clip", "minmax")
    try:
        if case.labeled and sha256(case_files(store.folder, id)["reference"]) != case.files["reference"]["sha256"]:
            seen.trouble["files"] = "its reference is not what was prepared"
        image = store.image(id, verify=True)
        low, high = float(np.min(image)), float(np.max(image))  # NaN goes through both
        if not (math.isfinite(low) and math.isfinite(high)):
            seen.trouble["voxels"] = "its image has voxels that are NaN or infinite"
        elif low == high:
            seen.trouble["contrast"] = f"every voxel of its image is {low:g}"
        elif scaled and not -_SCALED <= low <= high <= 1 + _SCALED:
            seen.trouble["range"] = f"its image goes from {low:g} to {high:g}"
        if not case.labeled:
            return seen
        label = store.label(id, verify=True)
    except DataError as error:
        seen.trouble["files"] = error.message
        return seen
    except OSError as error:
        seen.trouble["files"] = f"{error.filename}: {error.strerror}"
        return seen
    classes = store.dataset.num_classes()
    counts = np.bincount(np.asarray(label).ravel(), minlength=classes)
    if len(counts) > classes:
        strange = ", ".join(str(value) for value in np.flatnonzero(counts[classes:])[:5] + classes)
        seen.trouble["labels"] = f"label values {strange} are not among the classes 0 to {classes - 1}"
        return seen
    seen.voxels = counts
    lost = [
        store.dataset.classes[value - 1].name
        for value in range(1, classes)
        if case.class_voxels[value] and not counts[value]
    ]
    if lost:
        seen.trouble["lost"] = f"no voxel of {', '.join(lost)} is left on the stored grid"
    if recipe is not None:
        _draw(image, label, recipe, number, classes, seen)
    return seen


def _draw(
    image: NDArray[Any], label: NDArray[np.uint8], recipe: Recipe, seed: int, classes: int, seen: _Looked
) -> None:
    """Patches of one case, cut, turned and resized by the recipe's own sampler. It takes a case at random in 3-D; in
    2-D it takes a slice or tile, so that a case counts with as many as it has."""
    import torch

    from sslbench.data.sampling import Sampler, TrainingSet

    def sampling(size: int) -> Sampler:
        batch = recipe.batch.model_copy(update={"labeled": size, "unlabeled": 0})
        return Sampler(TrainingSet([image], [label]), recipe.model_copy(update={"batch": batch}), seed, cpu)

    cpu = torch.device("cpu")
    try:
        sampler = sampling(1)
    except UsageError:  # nothing but blank tiles
        return
    patches = PATCHES
    if len(recipe.patch_size) == 2:
        count = sampler.count["labeled"]
        patches = _DRAWS * count
        # As many at once as fit, and such that batches end where the slices do: each is drawn equally often.
        sampler = sampling(max(size for size in range(1, _AT_ONCE + 1) if count % size == 0))
    share, within = np.zeros(classes), np.zeros(classes, np.int64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a patch is too small to share, and on a busy machine threads wait for each other
    try:
        for iteration in range(patches // sampler.recipe.batch.labeled):
            for patch in sampler.batch(iteration, ("labeled",), ("weak",)).label["weak"].numpy():
                counts = np.bincount(patch.ravel(), minlength=classes)
                share += counts / patch.size
                within += counts > 0
    finally:
        torch.set_num_threads(threads)
    seen.patches, seen.patch_share, seen.patches_with = patches, share, within


# ----------------------------------------------------------------------------------------------------- the checks


def _holding(store: Store) -> Iterable[Finding]:
    """How much of the release is there, and what the preparation left out."""
    index = read_json(store.folder / "dataset.json")
    failed = index.get("failed", {}) if isinstance(index, dict) else {}
    form = store.form.title.split(" (")[0]
    if store.is_subset:
        message = f"a subset: {len(store.cases)} of {store.official} cases, from {form}; tables made on it say so"
        yield Finding("cases", "note", message)
    else:
        yield Finding("cases", "ok", f"all {store.official} cases, from {form}")
    if bare := tuple(id for id, case in store.cases.items() if not case.labeled):
        message = f"{len(bare)} of them without a label, for training without one: {_id_text(bare)}"
        yield Finding("cases", "note", message, bare)
    for id, reason in sorted(failed.items()):
        yield Finding("cases", "warning", f"{id} was left out when the dataset was prepared: {reason}", (id,))


_WRONG: tuple[tuple[str, Severity, str], ...] = (
    ("files", "error", "every file is as it was prepared"),
    ("voxels", "error", "every voxel is finite"),
    ("labels", "error", "the labels are classes, and nothing else"),
    ("contrast", "warning", ""),
    ("range", "warning", ""),
    ("lost", "warning", ""),
)


def _content(store: Store, looked: Mapping[str, _Looked]) -> Iterable[Finding]:
    """What reading the cases showed."""
    remake = f"run {command(store.dataset, store.preprocessing, force=True)}"
    for check, severity, right in _WRONG:
        wrong = {id: case.trouble[check] for id, case in looked.items() if check in case.trouble}
        for id, reason in wrong.items():
            yield Finding(check, severity, f"{id}: {reason}", (id,), remake if severity == "error" else "")
        if right and not wrong:
            unread = sum("files" in case.trouble for case in looked.values())
            rest = f" in the {len(looked) - unread} cases that could be read" if unread else ""
            yield Finding(check, "ok", right + rest)


def _spacing(store: Store) -> Iterable[Finding]:
    """Whether the scans' voxels have sizes that belong together; those in millimetres rest on them."""
    if store.spacing != "header":
        unknown = "1 mm is assumed, so that millimetres mean voxels here"
        meaning = (
            unknown if store.spacing == "unknown" else "what was published is taken, so that millimetres are nominal"
        )
        yield Finding("spacing", "note", f"the files do not say how large a voxel is: {meaning}")
        return
    sizes = {id: _scan_spacing(case) for id, case in store.cases.items()}
    sizes = {id: size for id, size in sizes.items() if size}
    if not sizes:
        return
    strange = {id: size for id, size in sizes.items() if not all(0 < side <= MAX_SPACING_MM for side in size)}
    for id, size in strange.items():
        yield Finding("spacing", "error", f"{id}: a voxel of {_mm(size)} is not plausible", (id,))
    sound = {id: size for id, size in sizes.items() if id not in strange}
    middle = np.median(np.array([*sound.values()]), axis=0) if len({*map(len, sound.values())}) == 1 else None
    far = {}
    for id, size in sound.items():
        if middle is not None and np.abs(np.log(np.array(size) / middle)).max() > math.log(_SPACING_FACTOR):
            far[id] = size
            message = f"{id}: a voxel of {_mm(size)}, where {_mm(middle)} is usual"
            yield Finding("spacing", "warning", message, (id,), "compare with the header of the scan")
    alike = len({*sound.values()}) == 1 and len(sound) > 2
    unit = tuple(id for id, size in sound.items() if size == (1.0, 1.0, 1.0))
    if unit:
        message = f"{_id_text(unit)}: a voxel of 1 x 1 x 1 mm is what files say that lost their spacing"
        yield Finding("spacing", "warning", message, unit, "compare with the header of the scan")
    elif alike:
        size = next(iter(sound.values()))
        message = f"every scan has a voxel of {_mm(size)}: true, or a nominal size that replaced the real ones"
        yield Finding("spacing", "note", message)
    elif sound and not strange and not far:
        low, high = (_mm(edge(np.array([*sound.values()]), axis=0)) for edge in (np.min, np.max))
        yield Finding("spacing", "ok", f"voxels of the scans from {low} to {high}")


def _scan_spacing(case: Case) -> tuple[float, ...]:
    """Voxel sides of the scan itself in mm, to a tenth of a micrometre; () where the cache has none."""
    grid = case.geometry.get("from")
    return tuple(round(float(side), 7) for side in grid["spacing_mm"]) if isinstance(grid, dict) else ()


def _duplicates(store: Store) -> Iterable[Finding]:
    """Images that are there twice."""
    same: dict[str, list[str]] = defaultdict(list)
    for id, case in store.cases.items():
        same[case.files["image"]["sha256"]].append(id)
    alike = [ids for ids in same.values() if len(ids) > 1]
    for ids in alike:
        labels = {store.cases[id].files["label"]["sha256"] for id in ids if store.cases[id].labeled}
        patients = {store.cases[id].group for id in ids}
        if len(labels) < len(ids):
            severity: Severity = "error" if len(patients) > 1 else "warning"
            yield Finding("duplicates", severity, f"{_id_text(ids)} are the same image with the same label", tuple(ids))
        else:
            message = f"{_id_text(ids)} are the same image, annotated {len(ids)} times"
            yield Finding("duplicates", "note", message, tuple(ids))
    if not alike:
        yield Finding("duplicates", "ok", "no image is there twice")


def _modalities(store: Store) -> Iterable[Finding]:
    """Scans of several kinds in one dataset."""
    kinds = Counter(store.dataset.modality_of(id) for id in store.cases)
    if len(kinds) > 1:
        told = ", ".join(f"{count} {kind.upper()}" for kind, count in kinds.most_common())
        prep = store.dataset.preprocessings[store.preprocessing]
        clipped = "" if prep.clip is None or prep.mri is not None else "; MRI is clipped as CT here"
        mri = tuple(id for id in store.cases if store.dataset.modality_of(id) == "mri")
        yield Finding("modality", "note", f"{told} scans{clipped}", mri)


def _classes(store: Store, looked: Mapping[str, _Looked]) -> Iterable[Finding]:
    """Classes that cases do not have: what protocols do with empty masks depends on them."""
    read = {id: case.voxels for id, case in looked.items() if case.voxels is not None}
    complete = True
    for value, info in enumerate(store.dataset.classes, 1):
        absent = tuple(id for id, voxels in read.items() if not voxels[value])
        if not absent:
            continue
        complete = False
        if len(absent) == len(read):
            message = f"{info.name}: in none of the {len(read)} cases, so nothing can be learnt or scored"
            yield Finding("classes", "warning", message, absent)
        else:
            message = f"{info.name}: absent in {len(absent)} of {len(read)} cases ({_id_text(absent)})"
            yield Finding("classes", "note", message, absent)
    empty = tuple(id for id, voxels in read.items() if not voxels[1:].any())
    if empty and len(store.dataset.classes) > 1:
        message = f"{_id_text(empty)}: nothing but background, so the label may be missing"
        yield Finding("classes", "warning", message, empty)
    if complete and read:
        yield Finding("classes", "ok", "every case has every class")


# ---------------------------------------------------------------------------------------------------------- lists


def _lists(store: Store, name: str, looked: Mapping[str, _Looked], asked: bool) -> tuple[list[Finding], list[ListRow]]:
    """Findings and counts of one named split."""
    check = f"splits {name}"
    try:
        splits = load_splits(store.dataset.name, name)
    except SSLBenchError as error:
        return [Finding(check, "error", error.message, remedy=error.hint)], []
    groups = store.groups()
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    budgets = {budget.title: budget.labeled for budget in splits.budgets.values()}

    def row(part: str, entries: Sequence[str]) -> ListRow:
        cases = expand(entries, groups)
        held = sum(entry in groups for entry in entries)
        mri = sum(store.dataset.modality_of(id) == "mri" for id in cases)
        return ListRow(name, part, splits.unit, len(entries), held, len(cases), mri)

    rows = [row(part, entries) for part, entries in (parts | budgets).items()]
    sizes = "/".join(str(len(entries)) for entries in parts.values())
    missing = [f"{r.held} of {r.official} {r.part}" for r in rows[: len(parts)] if r.held < r.official]
    held = f"held: {', '.join(missing)}" if missing else "all held"
    findings = [Finding(check, "note" if missing else "ok", f"{sizes} {splits.unit}s, {held}")]
    findings += _leaks(store, splits, parts, groups, check, asked)
    findings += _nesting(splits, check)
    listed = {id for entries in parts.values() for id in expand(entries, groups)}
    others = tuple(id for id in store.cases if id not in listed)
    if others:
        findings.append(
            Finding(check, "note", f"{len(others)} cases are on none of its lists: {_id_text(others)}", others)
        )
    for budget in splits.budgets.values():
        seen = [looked[id].voxels for id in expand(budget.labeled, groups)]
        counted = [voxels for voxels in seen if voxels is not None]
        absent = [
            info.name
            for value, info in enumerate(store.dataset.classes, 1)
            if counted and not any(voxels[value] for voxels in counted)
        ]
        if absent:
            whole = not lacking(store, budget.labeled)
            message = f"{budget.title}: {', '.join(absent)} in no labelled case" + ("" if whole else " that is held")
            findings.append(Finding(check, "warning" if whole else "note", message))
    return findings, rows


def _leaks(
    store: Store,
    splits: Splits,
    parts: Mapping[str, Sequence[str]],
    groups: dict[str, list[str]],
    check: str,
    asked: bool,
) -> Iterable[Finding]:
    """Patients and scans on two sides of a split. In lists known for it that is no error: nobody gets them unasked."""
    severity: Severity = "error"
    if splits.leaks:
        severity = "warning" if asked else "note"
        yield Finding(
            check, severity, f"known to leak: {splits.leaks}", remedy="used only where it is asked for by name"
        )
    torn = 0
    for same, key in (
        ("case", lambda case: case.id),
        ("patient", lambda case: case.group),
        ("scan", lambda case: case.files["image"]["sha256"]),
    ):
        sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for part, entries in parts.items():
            for id in expand(entries, groups):
                sides[key(store.cases[id])][part].append(id)
        shared = {what: where for what, where in sides.items() if len(where) > 1}
        if same != "case":  # what the line before said already
            shared = {what: w for what, w in shared.items() if len({frozenset(ids) for ids in w.values()}) > 1}
        for one, other in combinations(parts, 2):
            both = [where for where in shared.values() if one in where and other in where]
            if not both:
                continue
            torn += 1
            ids = tuple(dict.fromkeys(id for where in both for part in (one, other) for id in where[part]))
            count = f"{len(both)} {same}{'' if len(both) == 1 else 's'}"
            remedy = "" if splits.leaks else f"mend the lists, or end their name in {LEAKING} and say why in `leaks`"
            yield Finding(check, severity, f"{count} in {one} and in {other}: {_id_text(ids)}", ids, remedy)
    if not torn and not splits.leaks:
        alone = all(case.group == id for id, case in store.cases.items())
        message = "no scan is in two of its lists (each counts as a patient of its own)"
        yield Finding(check, "ok", message if alone else "no patient and no scan is in two of its lists")


def _nesting(splits: Splits, check: str) -> Iterable[Finding]:
    """Whether a larger budget holds the smaller one: if not, a gain with more labels is also one of other scans."""
    lists = sorted(splits.budgets.values(), key=lambda budget: len(budget.labeled))
    apart = [
        f"{small.title} and {large.title} share {len(both)} of {len(small.labeled)}"
        for small, large in combinations(lists, 2)
        if len(both := {*small.labeled} & {*large.labeled}) < len(small.labeled)
    ]
    if apart:
        yield Finding(check, "note", f"its label budgets are not nested: {'; '.join(apart)}")
    elif len(lists) > 1:
        yield Finding(check, "ok", "its label budgets are nested")


# --------------------------------------------------------------------------------------------------------- classes


def _class_rows(store: Store, looked: Mapping[str, _Looked]) -> tuple[ClassRow, ...]:
    counts = [case.voxels for case in looked.values() if case.voxels is not None]
    if not counts:
        return ()
    voxels = np.sum(counts, axis=0)
    drawn = [case for case in looked.values() if case.patches]
    patches = sum(case.patches for case in drawn)
    # A case counts with as many patches as its sampler draws of it: the same in 3-D, by slices in 2-D.
    share, within = np.zeros(len(voxels)), np.zeros(len(voxels), np.int64)
    for case in drawn:
        share += case.patch_share / patches
        within += case.patches_with
    names = [("background", "bg"), *((info.name, info.short) for info in store.dataset.classes)]
    return tuple(
        ClassRow(
            label=value,
            name=name,
            short=short,
            voxels=int(voxels[value]),
            share=float(voxels[value] / voxels.sum()),
            patch_share=float(share[value]) if patches else None,
            patches_with=float(within[value] / patches) if patches else None,
            cases=sum(int(count[value] > 0) for count in counts),
        )
        for value, (name, short) in enumerate(names)
    )


def percent(share: float) -> str:
    """A share as a percentage with two digits that mean something: `96 %`, `1.2 %`, `0.0034 %`."""
    value = 100 * share
    if not value:
        return "0 %"
    if 99 < value < 100:
        return f"{value:.1f} %" if value < 99.95 else "> 99.9 %"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f} %"


def _id_text(ids: Sequence[str]) -> str:
    """The first ids and how many more there are."""
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _mm(size: Iterable[float]) -> str:
    return " x ".join(f"{float(side):.5g}" for side in size) + " mm"
