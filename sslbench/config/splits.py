"""Named case lists and label budgets: files with hashes, checked for overlap before anything uses them.

The lists that papers published are in the package; those of the user lie in the data folder, as
`<data_dir>/<dataset>/splits/<name>.yaml`, in the same form. A packaged name wins.

    unit: patient                        # what an entry names: a case, or a patient with all its cases
    source: where the lists come from
    budgets:
      10pct: {title: '10%', prefix: 2}   # the first entries of `train`, or `labeled: [...]`; also `aliases`
    leaks: how                           # only of lists known for it, whose name ends in -leaking
    refused: {20pct: why}                # only of a split whose name others use for a budget that is not offered
    train: [...]
    val: [...]                           # may be empty
    test: [...]
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sslbench.config.draws import HELD, drawn_slug, in_drawn_order, labels_of_draw, split_draw
from sslbench.core import registry
from sslbench.core.endings import without_ending
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.files import is_plain_name, read_text, write_text
from sslbench.core.settings import user_path

PARTS = ("train", "val", "test")
LEAKING = "-leaking"
BUDGETS = ("5%", "10%", "20%", "100%")  # of lists that are drawn, where they hold a patient
FRACTIONS = (70.0, 10.0, 20.0)  # per cent of the patients in train, val and test


@dataclass(frozen=True)
class Budget:
    """A label budget: which entries of the training list are labelled.

    Attributes:
        slug: its name in folders and digests (`20pct`, `3-patients`).
        title: its name for people (`20%`, `3 patients`).
        labeled: entries of `Splits.train`, in published order.
        aliases: other spellings; `20%`, `3 volumes` and the slug itself are understood anyway.
        partial: whether it stands for what is held of it: it was asked for as `20%-held`.
        draw: which draw of its size it is, from 1; 0: it is a list of the file.
    """

    slug: str
    title: str
    labeled: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    partial: bool = False
    draw: int = 0


@dataclass(frozen=True)
class Splits:
    """The case lists of one published split.

    Attributes:
        dataset, name: whose, and which (`synapse`, `ga`).
        unit: what an entry names, for people (`scan`, `patient`); a patient's cases stay together.
        train, val, test: entries, disjoint; `val` may be empty.
        budgets: label budgets by slug.
        source: where the lists were published.
        leaks: how training reaches validation or test in lists that are known for it, in one line; else empty. Such
            lists end their name in `-leaking`: nobody gets them without asking, and every caption names them.
        refused: budgets that go by this split's name elsewhere, by slug, and why they are not offered.
    """

    dataset: str
    name: str
    unit: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    budgets: dict[str, Budget]
    source: str = ""
    leaks: str = ""
    refused: dict[str, str] = field(default_factory=dict)

    def budget(self, text: str) -> Budget:
        """Return the budget that a slug, title or alias means, or a draw of its size: `20%#3`.

        Raises:
            UnknownNameError: the split has no such budget.
            UsageError: it has one of `refused`.
        """
        wanted = slug_of(text)
        for budget in self.budgets.values():
            if wanted in _spellings(budget):
                return budget
        if wanted.endswith(HELD):
            whole = self.budget(wanted.removesuffix(HELD))
            return replace(whole, slug=whole.slug + HELD, title=f"{whole.title} (as held)", aliases=(), partial=True)
        base, draw = split_draw(wanted)
        if draw and (found := self._drawn(base, draw, str(text))):
            return found
        known = [budget.title for budget in self.budgets.values()]
        if wanted in self.refused:
            message = f"label budget '{text}' of {self.dataset} (splits {self.name}) is refused: {self.refused[wanted]}"
            raise UsageError(message, f"known: {', '.join(known)}")
        raise UnknownNameError(f"label budget of {self.dataset} (splits {self.name})", str(text), known)

    def _drawn(self, base: str, draw: int, text: str) -> Budget | None:
        """A draw of a budget, or of any other size; None where the size cannot be read."""
        where = f"label budget '{text}' of {self.dataset} (splits {self.name})"
        patient_of = registry.component("dataset", self.dataset).group_of
        pool = self.labeled_ever()
        known = next((each for each in self.budgets.values() if base in _spellings(each)), None)
        by_patient = False
        if known is not None:
            size = len(known.labeled)
        elif found := re.fullmatch(r"(\d+(?:\.\d+)?)pct", base):
            size = int(float(found[1]) * len(self.train) / 100 + 1e-9)  # so that 10 % of 30 are 3 in floating point
        elif found := re.fullmatch(r"(\d{1,6})-([a-z]+?)s?", base):
            size, counted = int(found[1]), found[2]
            single = len({*map(patient_of, pool)}) == len(pool)
            if counted not in (self.unit, "patient", *(() if self.unit == "patient" else ("case", "volume"))):
                hint = f"write {size} {self.unit}s"
                raise UsageError(f"{where}: these lists are of {self.unit}s, not {counted}s", hint)
            by_patient = counted == "patient" != self.unit and not single
        else:
            return None
        labeled = labels_of_draw(pool, patient_of, draw, size, by_patient)
        if not labeled or len(labeled) == len(pool):
            raise UsageError(
                f"{where} is {len(labeled)} of the {len(pool)} training {self.unit}s that any budget labels:"
                " there is nothing to draw",
                "draw fewer than all, and one at least",
            )
        if known is None and not by_patient:
            known = next((each for each in self.budgets.values() if len(each.labeled) == size), None)
        number = f"{size} {'patient' if by_patient else self.unit}{'s' if size > 1 else ''}"
        title = known.title if known else number
        slug = drawn_slug(known.slug if known else slug_of(number), draw)
        return Budget(slug, f"{title}, draw {draw}", labeled, draw=draw)

    def labeled_ever(self) -> tuple[str, ...]:
        """Return the training entries that any budget labels: those whose labels are known."""
        known = {entry for budget in self.budgets.values() for entry in budget.labeled}
        return tuple(entry for entry in self.train if entry in known)

    def fingerprint(self, labeled: str) -> str:
        """Hash the lists that decide a job: train, val, test and the budget's labelled entries."""
        lists = [self.train, self.val, self.test, self.budget(labeled).labeled]
        return hashlib.sha256(json.dumps(lists).encode()).hexdigest()

    def labeled_always(self) -> tuple[str, ...]:
        """Return the entries that are labelled under every budget: what may be known of labels before one is chosen."""
        lists = [set(budget.labeled) for budget in self.budgets.values()]
        return tuple(entry for entry in self.train if all(entry in labeled for labeled in lists))


def _spellings(budget: Budget) -> set[str]:
    """The slugs of all its names."""
    return {slug_of(name) for name in (budget.slug, budget.title, *budget.aliases)}


@lru_cache
def slug_of(text: str) -> str:
    """Return the folder-safe form of a budget's name: `20%` → `20pct`, `3 patients` → `3-patients`."""
    text = re.sub(r"\s*%", "pct", str(text).strip().lower())
    text = re.sub(r"[\s_]+", "-", text)
    return re.sub(r"\.0+(?=pct|$)", "", text)


# ------------------------------------------------------------------------------------------------------ the files


def load_splits(dataset: str, name: str) -> Splits:
    """Load the named splits of a dataset, and check them.

    Raises:
        UsageError: no such dataset or splits, or lists that overlap.
    """
    files = split_files(dataset)
    if name not in files:
        raise UnknownNameError(f"splits of {dataset}", name, files)
    path = files[name]
    found = path.stat()
    return _loaded(path, (found.st_mtime_ns, found.st_size), dataset, name)


def split_files(dataset: str) -> dict[str, Path]:
    """Return the split lists of a dataset by name: packaged ones, and the user's in the data folder that was opened."""
    component = registry.component("dataset", dataset)
    owner = component.splits_from or component.name
    found = dict(_packaged(owner))
    for place, path in registry.kept_files("splits").items():
        holder, _, name = place.partition("/")
        if holder in (owner, component.name):
            found.setdefault(name, path)
    return dict(sorted(found.items()))


@lru_cache
def _packaged(owner: str) -> dict[str, Path]:
    packaged = (Path(__file__).parent.parent / "splits").glob(f"{owner}-*.yaml")
    return {path.stem.removeprefix(f"{owner}-"): path for path in packaged}


@lru_cache(maxsize=32)
def _loaded(path: Path, stamp: tuple[int, int], dataset: str, name: str) -> Splits:
    from sslbench.config.text import load_yaml

    return parse_splits(load_yaml(path), dataset, name)


def parse_splits(raw: Mapping[str, Any], dataset: str, name: str) -> Splits:
    """Splits from the content of a split file.

    Raises:
        UsageError: what is no list of names, lists that overlap or repeat an entry, or a budget that names what is
            not in `train`.
    """
    where = f"splits {name} of {dataset}"
    lists = {part: _entries(raw.get(part), part, where) for part in PARTS}
    leaks = str(raw.get("leaks", ""))
    if bool(leaks) != name.endswith(LEAKING):
        raise UsageError(f"{where}: lists that are known to leak say how in `leaks`, and end their name in {LEAKING}")
    # Known leaks between the lists are let through by their name; an entry twice in one list never is.
    for group in [{part: entries} for part, entries in lists.items()] if leaks else [lists]:
        _disjoint(group, where)
    refused = {slug_of(slug): " ".join(str(why).split()) for slug, why in raw.get("refused", {}).items()}
    budgets = {}
    if not isinstance(raw.get("budgets", {}), Mapping):
        raise UsageError(f"{where}: budgets is a mapping of names to lists of labelled entries")
    for written, content in raw.get("budgets", {}).items():
        slug = slug_of(written)
        if not is_plain_name(slug):
            raise UsageError(f"{where}: a budget cannot be called {written!r}: its runs lie in a folder of its name")
        if not isinstance(content, Mapping):
            raise UsageError(f"{where}: budget {slug} is a mapping with `labeled` or `prefix`, not {content!r}")
        prefix = content.get("prefix", 0)
        if not isinstance(prefix, int) or prefix < 0 or prefix > len(lists["train"]):
            raise UsageError(f"{where}: budget {slug} has the prefix {prefix!r} of {len(lists['train'])} entries")
        labeled = _entries(content.get("labeled", lists["train"][:prefix]), f"budget {slug}", where)
        stray = [entry for entry in labeled if entry not in lists["train"]]
        if stray or not labeled or len(set(labeled)) < len(labeled):
            raise UsageError(f"{where}: budget {slug} is empty, repeats an entry, or names {stray[:3]} outside train")
        aliases = tuple(str(alias) for alias in content.get("aliases") or [])
        budgets[slug] = Budget(slug, str(content.get("title", written)), labeled, aliases)
    return Splits(
        dataset=dataset,
        name=name,
        unit=str(raw.get("unit", "case")),
        budgets=budgets,
        source=str(raw.get("source", "")),
        leaks=leaks,
        refused=refused,
        train=lists["train"],
        val=lists["val"],
        test=lists["test"],
    )


def _entries(value: Any, part: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | None) or any(isinstance(entry, list | Mapping) for entry in value or []):
        raise UsageError(f"{where}: {part} is a list of names, not {str(value)[:60]!r}")
    for entry in value or []:
        if not isinstance(entry, str):  # YAML makes 1 of 0001, and 0009 stays what it is
            raise UsageError(
                f"{where}: {part} holds {entry!r}, which is no name", "put names of digits in quotes: '0001'"
            )
    return tuple(value or ())


def _disjoint(lists: dict[str, tuple[str, ...]], where: str) -> None:
    seen: dict[str, str] = {}
    for part, entries in lists.items():
        for entry in entries:
            if entry in seen:
                raise UsageError(f"{where}: '{entry}' stands in {seen[entry]} and again in {part}")
            seen[entry] = part


def write_splits(path: Path, splits: Splits) -> None:
    """Write lists in the form that `load_splits` reads, whole or not at all."""
    from sslbench.config.text import yaml_text

    budgets = {}
    for slug, budget in splits.budgets.items():
        fields: dict[str, Any] = {"title": budget.title}
        if budget.labeled == splits.train[: len(budget.labeled)]:
            fields["prefix"] = len(budget.labeled)
        else:
            fields["labeled"] = list(budget.labeled)
        budgets[slug] = fields | ({"aliases": list(budget.aliases)} if budget.aliases else {})
    lists = {part: list(getattr(splits, part)) for part in PARTS}
    about = {"unit": splits.unit, "source": splits.source} | ({"leaks": splits.leaks} if splits.leaks else {})
    head = yaml_text(about, flow=False)
    lines = [f"  {slug}: {yaml_text(fields, flow=True, width=10**6)}" for slug, fields in budgets.items()]
    write_text(path, head + "budgets:\n" + "".join(lines) + yaml_text(lists))


# ------------------------------------------------------------------------------------------------- drawing lists


def draw_splits(
    dataset: str,
    name: str,
    patients: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    test: Iterable[str] | None = None,
    budgets: Sequence[str] = BUDGETS,
    unlabeled: Collection[str] = (),
) -> Splits:
    """Lists drawn by patient: every patient's cases stay together, and a larger budget holds all smaller ones.

    Patients are put in the order of the SHA-256 of `<seed>/<patient>`: the first go to test, the next to
    validation, the rest to training. So the lists depend on no file order, platform or generator. Of n patients
    round(n·share) are test and validation patients, one at least where the share is not 0.

    Args:
        dataset, name: whose, and what to call them.
        patients: patient -> its case ids.
        seed: another one, other lists.
        fractions: shares of train, val and test, in any unit; a validation share of 0 means none.
        test: the test patients, where they are given; the shares of train and val are then of the others.
        budgets: titles: a share of the training patients (`20%`, rounded down) or a number of them (`3`). Those
            below one patient, and those that equal one before, are left out; where nothing but all would be left,
            one patient is a budget too.
        unlabeled: case ids without a label. Test, validation and budgets are drawn from the others; a patient without
            any label is for training, and where a patient has cases of both kinds, entries are cases.

    Raises:
        UsageError: shares without meaning, or fewer patients with labels than parts.
    """
    known = {patient: [case for case in cases if case not in unlabeled] for patient, cases in patients.items()}
    bare = in_drawn_order((patient for patient, cases in known.items() if not cases), seed)
    mixed = any(cases and len(cases) < len(patients[patient]) for patient, cases in known.items())
    everyone, patients = patients, {patient: cases for patient, cases in patients.items() if known[patient]}
    where = f"splits {name} of {dataset}"
    if len(fractions) != 3 or min(fractions) < 0 or not fractions[0] > 0 or (test is None and not fractions[2] > 0):
        raise UsageError(
            f"{where}: shares of {', '.join(f'{share:g}' for share in fractions)} for train, val and test",
            "three numbers, those of train and test above 0: 70,10,20",
        )
    order = in_drawn_order(patients, seed)
    fixed = set(test or ())
    tested = [patient for patient in order if patient in fixed]
    rest = [patient for patient in order if patient not in fixed]
    if test is None:
        size = _share(len(rest), fractions[2] / sum(fractions))
        tested, rest = rest[:size], rest[size:]
    size = _share(len(order) if test is None else len(rest), fractions[1] / sum(fractions[: 3 if test is None else 2]))
    val, train = rest[:size], rest[size:]
    if not train or not tested:
        raise UsageError(
            f"{where}: {len(order)} patients {'with labels ' if unlabeled else ''}do not go round train, val and test"
            + (f", with {len(tested)} set aside for testing" if test is not None else ""),
            "prepare more of them, or do without validation: --fractions 80,0,20",
        )
    unit = "patient" if any(list(cases) != [patient] for patient, cases in patients.items()) else "case"
    given = f"{len(tested)} given test {unit}s, the rest" if test is not None else f"{len(order)} {unit}s"
    if unlabeled:
        given += " with labels"
    patient_of = {patient: patient for patient in (*train, *bare)}
    if mixed:
        unit = "case"
        patient_of = {case: patient for patient in patient_of for case in everyone[patient]}
        val, tested = ([case for patient in part for case in known[patient]] for part in (val, tested))
    shares = "/".join(f"{share:g}" for share in fractions[: 3 if test is None else 2])
    made = Splits(
        dataset=dataset,
        name=name,
        unit=unit,
        train=tuple(patient_of),
        val=tuple(val),
        test=tuple(tested),
        budgets={},
        source=f"drawn by sslbench with seed {seed}: {given} {shares}; budgets are nested",
    )
    return with_budgets(made, patient_of, seed, budgets, {*unlabeled, *bare})


def with_budgets(
    splits: Splits,
    patient_of: Mapping[str, str],
    seed: int = 0,
    budgets: Sequence[str] = BUDGETS,
    unlabeled: Collection[str] = (),
) -> Splits:
    """Draw nested budgets for lists from `train` by patient; see `draw_splits`.

    A share is one of all training patients; what is more than have labels is all of these.

    Args:
        splits: lists whose budgets are replaced.
        patient_of: entry of `train` -> patient.
        seed, budgets: as for `draw_splits`.
        unlabeled: entries of `train` without a label.

    Raises:
        UsageError: a budget that cannot be read, or none that holds a patient.
    """
    where = f"splits {splits.name} of {splits.dataset}"
    known = [entry for entry in splits.train if entry not in unlabeled]
    order = in_drawn_order({patient_of[entry] for entry in known}, seed)
    everyone = len({patient_of[entry] for entry in splits.train})
    whole = len(known) == len(splits.train)
    unit = splits.unit if whole or everyone == len(splits.train) else "patient"
    made: dict[str, Budget] = {}
    counts: set[int] = set()
    sizes = []
    for text in budgets:
        share = "%" in str(text)
        count = _budget_size(text, everyone if share else len(order), where)
        sizes.append((min(count, len(order)), str(text).strip() if count <= len(order) else str(len(order))))
    if whole and {count for count, _ in sizes if count} == {len(order)}:
        sizes.append((1, "1"))
    for count, title in sorted(sizes, key=lambda size: size[0]):
        if not count or count in counts:
            continue
        counts.add(count)
        chosen = {patient: place for place, patient in enumerate(order[:count])}
        labeled = [entry for entry in known if patient_of[entry] in chosen]
        labeled.sort(key=lambda entry: chosen[patient_of[entry]])
        if count == len(order):
            labeled = known
        named = f"{count} {unit}{'s' if count > 1 else ''}"
        aliases: tuple[str, ...] = (named, "all") if count == len(order) else (named,)
        if count == len(order) and whole:
            title = "100%"
        elif "%" not in title:
            title, aliases = named, aliases[1:]
        made[slug_of(title)] = Budget(slug_of(title), title, tuple(labeled), aliases)
    if not made:
        raise UsageError(f"{where}: none of the budgets {', '.join(budgets)} holds one of {len(order)} patients")
    return replace(splits, budgets=made)


def _share(count: int, share: float) -> int:
    return max(1, int(count * share + 0.5)) if share > 0 else 0


def _budget_size(text: str, patients: int, where: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(text))
    size = float(match[1]) if match else -1
    # In units of 1e-9 patients, so that 10 % of 30 are 3 in floating point too.
    size = int(size * patients / 100 + 1e-9) if match and match[2] else size
    if not 0 <= size <= patients or size != int(size):
        raise UsageError(f"{where}: the budget '{text}' of {patients} patients", "write 20%, or a number of patients")
    return int(size)


# ------------------------------------------------------------------------------------------------ users' own files


def read_split_file(path: Path, tested: Sequence[str] = (), unlabeled: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Read the lists in a user's file, by name: the file's own, or that of a fold (`fold-0`, ...).

    Read are the YAML form of the packaged lists, the same fields as JSON, nnU-Net's `splits_final.json`, a list of
    folds with `train` and `val`, and SSL4MIS's `train.list`, `val.list` and `test.list`, a name on every line: name the
    first of them, or their folder. The `val` of a fold is what cross-validation scores: where nothing else is set
    aside for testing it is read as `test`, and there is no validation.

    Args:
        path: of the file.
        tested: cases that are for testing wherever the file does not say which are.
        unlabeled: cases without a label. nnU-Net's folds cannot name them: they are for training in each.

    Raises:
        UsageError: a file that is neither, or a field that means nothing.
    """
    from sslbench.config.text import load_yaml

    path = user_path(path)
    if path.is_dir() or path.suffix.lower() in (".list", ".txt"):
        return {"lists": _plain_lists(path if path.is_dir() else path.parent, tested)}
    if not path.is_file():
        raise UsageError(
            f"there is no split file {path}", "name a YAML file, nnU-Net's splits_final.json or train.list"
        )
    if path.suffix.lower() != ".json":
        return {_list_name(path): _checked_fields(load_yaml(path), path, tested)}
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, dict):
        return {_list_name(path): _checked_fields(content, path, tested)}
    folds = content if isinstance(content, list) else []
    if not folds or not all(isinstance(fold, dict) and set(fold) == {"train", "val"} for fold in folds):
        raise UsageError(f"{path} is no list of folds with train and val", "nnU-Net's splits_final.json is one")
    made: dict[str, dict[str, Any]] = {}
    for number, fold in enumerate(folds):
        train, source = fold["train"], f"{path.name}, fold {number}"
        if unlabeled and isinstance(train, list) and isinstance(fold["val"], list):
            others = [case for case in unlabeled if case not in {*map(str, train), *map(str, fold["val"])}]
            train, source = train + others, f"{source}; {len(others)} cases without a label added to train"
        parts = {"val": fold["val"], "test": list(tested)} if tested else {"test": fold["val"]}
        made[f"fold-{number}"] = {"train": train, "source": source} | parts
    return made


def has_plain_lists(folder: Path) -> bool:
    """Tell whether a folder holds lists as SSL4MIS and its descendants keep them."""
    return all((folder / f"{part}.list").is_file() for part in ("train", "test"))


def _plain_lists(folder: Path, tested: Sequence[str]) -> dict[str, Any]:
    """`train.list`, `val.list` and `test.list` (or `.txt`) of a folder: a name on every line, with or without the
    ending and folders of its file."""
    found: dict[str, list[str]] = {}
    for part in PARTS:
        path = next((folder / f"{part}{end}" for end in (".list", ".txt") if (folder / f"{part}{end}").exists()), None)
        if path is None:
            continue
        try:
            lines = [line.strip() for line in read_text(path).splitlines()]
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise UsageError(f"{path} is no list of names: {error}") from error
        found[part] = list(dict.fromkeys(without_ending(line.rsplit("/", 1)[-1]) for line in lines if line))
    if "train" not in found:
        raise UsageError(f"there is no train.list in {folder}", "train.list and test.list hold a name on every line")
    if tested:
        found["test"] = list(tested)
    elif "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return {"source": "train.list and test.list", **found}


def _list_name(path: Path) -> str:
    name = re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")
    if not name:
        raise UsageError(f"{path}: the lists take their name from the file, and it has no letter", "rename it")
    return name


def _checked_fields(raw: dict[str, Any], path: Path, tested: Sequence[str]) -> dict[str, Any]:
    known = (*PARTS, "budgets", "unit", "source", "leaks")
    for key in raw:
        if key not in known:
            raise UnknownNameError(f"field in {path}:", str(key), known)
    return {"source": path.name} | ({"test": list(tested)} if tested else {}) | raw


def check_entries(
    splits: Splits, patient_of: Mapping[str, str], others: Iterable[str] = (), unlabeled: Collection[str] = ()
) -> None:
    """Hold lists against the cases that there are.

    Args:
        splits: lists with budgets.
        patient_of: case id -> patient.
        others: names that are right though nobody holds their cases here.
        unlabeled: case ids without a label.

    Raises:
        UsageError: a name that is neither a case nor a patient, no training or test case, a case without a label where
            one is needed, or a patient in two parts of lists that are not known to leak.
    """
    where = f"splits {splits.name} of {splits.dataset}"
    groups = groups_of(patient_of)
    known = {*groups, *others}
    side: dict[str, tuple[str, str]] = {}
    for part in PARTS:
        entries = getattr(splits, part)
        if not entries and part != "val":
            raise UsageError(f"{where}: {part} names no case")
        for entry in entries:
            if entry not in known:
                raise UnknownNameError(f"case in {part} of {where}:", entry, known)
            for patient in {patient_of[case] for case in groups.get(entry, ())}:
                other, there = side.setdefault(patient, (entry, part))
                if there != part and not splits.leaks:
                    raise UsageError(f"{where}: {other} ({there}) and {entry} ({part}) are of patient {patient}")
    budgets = {f"budget {budget.title}": budget.labeled for budget in splits.budgets.values()}
    for part, entries in {"val": splits.val, "test": splits.test, **budgets}.items():
        for entry in entries:
            if bare := [case for case in groups.get(entry, ()) if case in unlabeled]:
                raise UsageError(f"{where}: {part} names {entry}, and {bare[0]} has no label", "list it in train alone")


def groups_of(patient_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Patient -> its case ids, sorted; every case id stands for itself too."""
    members: dict[str, list[str]] = {}
    for case in sorted(patient_of):
        members.setdefault(patient_of[case], []).append(case)
    return {case: [case] for case in patient_of} | members


def expand(entries: Iterable[str], groups: dict[str, list[str]]) -> list[str]:
    """Case ids of split entries: an entry is a case id, or a group (patient) that stands for all its cases.

    Args:
        entries: in list order.
        groups: group -> its case ids, sorted. Entries that are not there (a partly held dataset) are left out.
    """
    return [case for entry in entries for case in groups.get(entry, [])]
