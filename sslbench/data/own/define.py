"""Defining a dataset of the user's own: look at a folder, draw or read lists, plan preprocessing and recipe.

What decides is in `data.planning` (from measurements to numbers), `data.layouts` (what folders say) and `data.splits`
(lists); here it comes together and is written down, in the files that `data.own` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sslbench.config.splits import (
    BUDGETS,
    FRACTIONS,
    Splits,
    check_entries,
    draw_splits,
    expand,
    groups_of,
    has_plain_lists,
    load_splits,
    parse_splits,
    read_split_file,
    split_files,
    with_budgets,
    write_splits,
)
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import move_aside, write_beside
from sslbench.core.settings import data_dir as data_folder
from sslbench.core.settings import user_path
from sslbench.data.base import ClassInfo, Dataset
from sslbench.data.files.volumes import PLAIN_IMAGES, read_volume
from sslbench.data.own import planning
from sslbench.data.own.dataset import (
    NAME,
    Definition,
    OwnDataset,
    load_all,
    patients_of,
    read_definition,
    write_definition,
)
from sslbench.data.own.layouts import TITLES, Layout, SourceContent, read_source

if TYPE_CHECKING:
    from sslbench.data.store import Case

_GREY_LEVELS = 128  # a mask stored as a picture, perhaps with losses, is foreground from here


@dataclass(frozen=True)
class Defined:
    """The result of `define`.

    Attributes:
        definition: of the dataset.
        recipe: the file of its recipe, and the name that means it.
        splits: the lists that were drawn or read.
        lines: for the user: what was found, what was decided, and from what.
    """

    definition: Definition
    recipe: Path
    splits: tuple[Splits, ...]
    lines: tuple[str, ...]


def define(
    name: str,
    source: Path | str,
    layout: Layout,
    *,
    data_dir: Path | str | None = None,
    classes: Sequence[str] = (),
    channels: Sequence[str] = (),
    dims: int | None = None,
    patients: str | None = None,
    splits: Path | str | None = None,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
    budgets: Sequence[str] | None = None,
    force: bool = False,
) -> Defined:
    """Define a dataset of the user's own: look at a folder, draw or read lists, plan preprocessing and recipe.

    What is defined already and would be defined alike stays as it is, the user's changes to the recipe too; lists of
    another name are added. `data.planning` holds the rules.

    Args:
        name: of the dataset: small letters, digits, `-` and `_`.
        source: the folder.
        layout: `nnunet` or `msd` (either means a folder with a `dataset.json`), or `pairs`.
        data_dir: folder of prepared datasets; that of `settings.data_dir` by default.
        classes, channels: names of the mask values and of an image's channels, for `pairs`; `CT` means something.
        dims: 2 or 3; decided from the voxels by default.
        patients: pattern that finds the patient in a case's name; a case is a patient by default.
        splits: the user's lists; by default those beside the data (`train.list` and `test.list`), else drawn.
        seed, fractions, budgets: of what is drawn, see `splits.draw_splits`; None: its defaults.
        force: define anew; what was there is kept beside, as `<file>.old-<n>`.

    Raises:
        UsageError: a name that is taken, a folder or lists that cannot be used, or what contradicts the definition
            that is there.
    """
    root, source = data_folder(data_dir), user_path(source)
    load_all(root)
    check_name(name)
    folder = root / name
    place, recipe = folder / "definition.yaml", folder / "recipes" / f"{name}.yaml"
    there = read_definition(place) if place.exists() and not force else None
    if there is not None:  # what is not said again stays
        classes = classes or [info.name for info in there.classes]
        channels = channels or there.channels
        patients = patients or there.patients
        dims = dims or dims_of(there)

    if splits is None and has_plain_lists(source):
        splits = source
    content = read_source(layout, source, classes, channels)
    of = patients_of(content.cases, patients)
    lists = _lists(name, content, of, splits, seed, fractions or FRACTIONS, budgets or BUDGETS)
    first = lists[0]
    if there is not None and there.measured_on in split_files(name):
        first = load_splits(name, there.measured_on)
    definition, measured = _plan(name, content, of, patients, dims, first, there)
    if there is not None:
        _refuse_change(there, definition, place)
        definition = there
    for made in lists:
        _refuse_unlabeled(definition, made, of)

    for made in lists:
        keep_lists(folder, made, force)
    if there is None:
        write_definition(place, definition, f"How sslbench reads {name}; titles and `short` names are free to change.")
    if there is None or not recipe.exists():
        preprocessing, prep = next(iter(definition.preprocessings.items()))
        write_beside(recipe, planning.recipe_text(name, measured, preprocessing, prep, first, content.classes))
    load_all(root)
    return Defined(
        definition, recipe, tuple(lists), tuple(_definition_notes(definition, content, of, measured, lists, recipe))
    )


def plan_class(
    kind: type[Dataset], preprocessing: str, cases: Mapping[str, Case], placed: bool, data_dir: Path
) -> list[str]:
    """Plan the recipe of a dataset that a class of the user's reads, and draw lists where it has none.

    A recipe of its name that is there already stays, whoever wrote it.

    Args:
        kind: the class, registered.
        preprocessing: the one that was prepared.
        cases: all that were.
        placed: whether their voxel sizes are known.
        data_dir: folder of prepared datasets.

    Returns:
        Lines for the user.
    """
    from sslbench.config.recipe import recipe_names

    name, folder = kind.name, data_dir / kind.name
    if name in registry.builtin("dataset") or issubclass(kind, OwnDataset) or name in recipe_names() or not cases:
        return []
    groups = groups_of({id: case.group for id, case in cases.items()})
    published = split_files(name)
    try:
        if published:
            lists, notes = load_splits(name, next(iter(published))), []
        else:
            patients = {case.group: groups[case.group] for case in cases.values()}
            lists = draw_splits(name, "drawn-0", patients)
            notes = split_notes([lists])
            keep_lists(folder, lists, force=False)
    except UsageError as error:
        return [f"no recipe was planned: {error}"]
    train = [cases[id] for id in expand(lists.train, groups)] or list(cases.values())
    prep = kind.preprocessings[preprocessing]
    measured = planning.measured_as_prepared(
        [case.shape for case in train], [case.spacing_mm for case in train], prep, placed
    )
    recipe = folder / "recipes" / f"{name}.yaml"
    classes = [info.name for info in kind.classes]
    dataset = registry.home("dataset", name) or name
    write_beside(recipe, planning.recipe_text(name, measured, preprocessing, prep, lists, classes, dataset))
    load_all(data_dir)
    return [*notes, _next_step(name, recipe, lists)]


def check_name(name: str) -> None:
    """Tell whether own data can have a name, once their data folder is known.

    Raises:
        UsageError: it is no name of a folder, or that of a dataset or recipe that is not the user's.
    """
    if not re.fullmatch(NAME, name):
        near = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:64]
        hint = "small letters, digits, - and _ make a name" + (f": {near}" if near else "")
        raise UsageError(f"'{name}' cannot name a dataset, its folder and its recipe", hint)
    from sslbench.config.recipe import recipe_names

    own = registry.kept_files("dataset")
    for kind, taken, kept in (
        ("dataset", registry.names("dataset"), own),
        (
            "recipe",
            recipe_names(),
            {stem for stem, path in registry.kept_files("recipe").items() if _home(path) == name},
        ),
    ):
        if name in taken and name not in kept:
            raise UsageError(f"there is a {kind} '{name}' already", f"give your data a name of their own: my-{name}")


def dims_of(definition: Definition) -> int:
    """2 where its first preprocessing makes slices, else 3."""
    return 2 if next(iter(definition.preprocessings.values())).axes == "zyx" else 3


def _home(path: Path) -> str:
    """The dataset in whose folder a recipe or a list lies."""
    return path.parent.parent.name


def _lists(
    name: str,
    content: SourceContent,
    of: Mapping[str, str],
    file: Path | str | None,
    seed: int,
    fractions: Sequence[float],
    budgets: Sequence[str],
) -> list[Splits]:
    """The lists of a file, or those that are drawn."""
    tested = [case.id for case in content.cases if case.test]
    bare = [case.id for case in content.cases if case.label is None]
    if len(bare) == len(content.cases):
        raise UsageError(f"none of the {len(bare)} images of {name} has a label", "some have to be annotated")
    if file is not None:
        return lists_of_file(name, Path(file), of, tested, seed=seed, budgets=budgets, unlabeled=bare)
    patients = {patient: cases for patient, cases in groups_of(of).items() if patient in set(of.values())}
    aside = {of[id] for id in tested}
    torn = next((case.id for case in content.cases if not case.test and of[case.id] in aside), None)
    if torn is not None:
        raise UsageError(f"the patient {of[torn]} of the training case {torn} is among the test cases too")
    return [
        draw_splits(
            name,
            f"drawn-{seed}",
            patients,
            seed=seed,
            fractions=fractions,
            test=aside or None,
            budgets=budgets,
            unlabeled=bare,
        )
    ]


def lists_of_file(
    dataset: str,
    file: Path,
    of: Mapping[str, str],
    tested: Sequence[str] = (),
    others: Sequence[str] = (),
    *,
    seed: int = 0,
    budgets: Sequence[str] = BUDGETS,
    unlabeled: Sequence[str] = (),
) -> list[Splits]:
    """The lists in a user's file, held against the cases; label budgets that it lacks are drawn.

    Args:
        dataset: whose.
        file: see `splits.read_split_file`.
        of: case id -> patient.
        tested: cases that are for testing wherever the file does not say which are.
        others: names that are right though nobody holds their cases here.
        seed, budgets: as for `splits.with_budgets`.
        unlabeled: case ids without a label.

    Raises:
        UsageError: the file or a list in it cannot be used.
    """
    lists, groups = [], groups_of(of)
    for name, raw in read_split_file(file, tested, unlabeled).items():
        made = parse_splits(raw, dataset, name)
        check_entries(made, of, others, unlabeled)
        if not made.budgets:
            patients = {entry: of.get(entry, entry) for entry in made.train}
            bare = [entry for entry in made.train if {*unlabeled}.intersection(groups.get(entry, ()))]
            made = with_budgets(made, patients, seed, budgets, bare)
        lists.append(made)
    return lists


def _plan(
    name: str,
    content: SourceContent,
    of: Mapping[str, str],
    patients: str | None,
    dims: int | None,
    lists: Splits,
    there: Definition | None,
) -> tuple[Definition, planning.Measured]:
    """The definition that follows from what the training images of some lists measure, and what that is."""
    groups, by_id = groups_of(of), {case.id: case for case in content.cases}
    images = [by_id[id].images[0] for id in expand(lists.train, groups)]
    measured = planning.measure(images)
    dims = dims or measured.dims
    if dims == 3 and min(measured.size) <= 1:
        raise UsageError(f"the images of {name} are single slices", "they are trained on as such: --dims 2")
    modality = planning.modality_of(content.channels, images)
    shown, clip = list(there.clipped_by if there is not None else expand(lists.labeled_always(), groups)), None
    if modality == "ct" and shown:
        clip = planning.ct_range([by_id[id] for id in shown if id in by_id and by_id[id].label is not None])
    prep = planning.plan_preprocessing(measured, dims, modality, clip)
    definition = Definition(
        name=name,
        title=f"{name} (own data)",
        layout=content.layout,
        classes=[ClassInfo(title, title) for title in content.classes],
        channels=list(content.channels),
        modality=modality,
        patients=patients,
        foreground_from=_GREY_LEVELS if _two_valued(content) else None,
        preprocessings={f"{dims}d": prep},
        measured_on=lists.name,
        clipped_by=shown if clip is not None else [],
        cases=len(content.cases),
    )
    return definition, measured


def _two_valued(content: SourceContent, look_at: int = 8) -> bool:
    """Tell whether masks of one class are pictures in black and white, and not in 0 and 1."""
    if len(content.classes) > 1:
        return False
    masks = [case.label for case in content.cases if case.label is not None]
    for mask in [mask for mask in masks if mask.suffix.lower() in PLAIN_IMAGES][:look_at]:
        try:
            if read_volume(mask, indices="always")[0].max() > 1:
                return True
        except SSLBenchError:
            continue  # preparing it will say what is wrong
    return False


def _refuse_change(there: Definition, now: Definition, place: Path) -> None:
    """Refuse what a second run of the same command finds otherwise than the first."""
    free = {"title", "classes", "measured_on"}
    changed = [key for key in Definition.model_fields if key not in free and getattr(there, key) != getattr(now, key)]
    if [info.name for info in there.classes] != [info.name for info in now.classes]:
        changed.insert(0, "classes")
    if changed:
        key = changed[0]
        was, found = (str(getattr(made, key))[:80] for made in (there, now))
        raise UsageError(
            f"{place} says otherwise: {key} {was}, and now {found}",
            "--source prepares it as defined; --force defines it anew and keeps the old files beside",
        )


def _refuse_unlabeled(definition: Definition, lists: Splits, of: Mapping[str, str]) -> None:
    """Labels have shown what to clip CT to, so lists have to label the cases that they are of, under every budget."""
    labeled = set(expand(lists.labeled_always(), groups_of(of)))
    stray = [id for id in definition.clipped_by if id not in labeled]
    if stray:
        raise UsageError(
            f"splits {lists.name} of {lists.dataset} do not label {stray[0]} under every budget, and its label shows "
            "in the range that images are clipped to",
            "name the source, --splits and --force in one command: it plans that range by these lists",
        )


def keep_lists(folder: Path, lists: Splits, force: bool) -> Path:
    """Write lists into a dataset's folder, as `splits/<name>.yaml`.

    Raises:
        UsageError: there are others of that name, and they are not to be replaced.
    """
    path = folder / "splits" / f"{lists.name}.yaml"
    if path.exists():
        from sslbench.config.text import load_yaml

        there = parse_splits(load_yaml(path), lists.dataset, lists.name)
        if (there.train, there.val, there.test, there.budgets) == (lists.train, lists.val, lists.test, lists.budgets):
            return path
        if not force:
            raise UsageError(f"{path} holds other lists", "rename yours, or replace it with --force")
        move_aside(path)
    write_splits(path, lists)
    return path


def add_splits(
    dataset: str,
    file: Path | str,
    *,
    data_dir: Path | str | None = None,
    seed: int = 0,
    budgets: Sequence[str] | None = None,
    force: bool = False,
) -> list[Splits]:
    """Add the user's lists to a dataset that is prepared, as `<data_dir>/<dataset>/splits/<name>.yaml`.

    Args:
        dataset: its name.
        file: the lists, see `splits.read_split_file`.
        data_dir: folder of prepared datasets; that of `settings.data_dir` by default.
        seed, budgets: of label budgets that the file lacks.
        force: replace lists of the same name.

    Raises:
        UsageError: nothing of the dataset is prepared, or lists that cannot be used.
    """
    from sslbench.data.card import write_card
    from sslbench.data.store import Store, command

    root = data_folder(data_dir)
    load_all(root)
    kind: type[Dataset] = registry.component("dataset", dataset)
    prepared = [prep for prep in kind.preprocessings if (root / kind.name / prep / "dataset.json").exists()]
    if not prepared:
        hint = f"run {command(kind, next(iter(kind.preprocessings)))} --splits {file}"
        raise UsageError(f"{kind.name} is not prepared in {root}, so nobody knows its cases", hint)
    stores = [Store.open(root, kind.name, prep) for prep in prepared]
    cases = [case for store in stores for case in store.cases.values()]
    of = {case.id: case.group for case in cases}
    bare = sorted({case.id for case in cases if not case.labeled})
    published = {name: path for name, path in split_files(kind.name).items() if not path.is_relative_to(root)}
    listed = [load_splits(kind.name, name) for name in published]
    others = [entry for lists in listed for entry in (*lists.train, *lists.val, *lists.test)]
    made = lists_of_file(kind.name, Path(file), of, (), others, seed=seed, budgets=budgets or BUDGETS, unlabeled=bare)
    for lists in made:
        if lists.name in published:
            raise UsageError(f"{kind.name} has published splits '{lists.name}'", f"rename {file}")
        if issubclass(kind, OwnDataset):
            _refuse_unlabeled(kind.definition, lists, of)
    for lists in made:
        keep_lists(root / kind.name, lists, force)
    load_all(root)
    for store in stores:
        write_card(store)
    return made


def _definition_notes(
    definition: Definition,
    content: SourceContent,
    of: Mapping[str, str],
    measured: planning.Measured,
    lists: Sequence[Splits],
    recipe: Path,
) -> list[str]:
    name, patients = definition.name, len(set(of.values()))
    preprocessing, prep = next(iter(definition.preprocessings.items()))
    people = f" of {patients} patients" if patients < len(of) else ""
    classes = ", ".join(info.name for info in definition.classes)
    channels = ", ".join(content.channels)
    bare = sum(case.label is None for case in content.cases)
    people += f", {bare} of them without a label" if bare else ""
    lines = [
        f"{name}: {TITLES[content.layout]}, {len(of)} cases{people}; channels {channels}; classes {classes}",
        f"measured: {measured}",
        f"preprocessing {preprocessing}: {prep.description}",
    ]
    return [*lines, *split_notes(lists), _next_step(name, recipe, lists[0])]


def _next_step(name: str, recipe: Path, lists: Splits) -> str:
    """The recipe of a dataset, and a command that trains on it."""
    partial = [budget for budget in lists.budgets.values() if len(budget.labeled) < len(lists.train)]
    budget = (partial or list(lists.budgets.values()))[-1]
    methods = "supervised,mt" if partial else "supervised"
    return f"recipe {recipe}: sslbench run -r {name} -m {methods} --labeled {budget.slug}"


def split_notes(lists: Sequence[Splits]) -> list[str]:
    """A line about each of some lists: how many entries they have, and which label budgets."""
    lines = []
    for made in lists:
        budgets = ", ".join(f"{budget.title} ({len(budget.labeled)})" for budget in made.budgets.values())
        sizes = f"{len(made.train)} train, {len(made.val)} val, {len(made.test)} test {made.unit}s"
        lines.append(f"splits {made.name}: {sizes}; labelled {budgets}")
    return lines
