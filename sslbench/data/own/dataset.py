"""Datasets of the user's own: defined by a file in the data folder, usable wherever a dataset is named.

<data_dir>/<name>/
    definition.yaml        classes, channels, patients, preprocessing: what `Definition` holds
    recipes/<name>.yaml    the recipe that was planned for it; more may lie beside it
    splits/<lists>.yaml    case lists and label budgets; those of official datasets lie in their folders likewise
    <preprocessing>/       the cache, as of any dataset

`data.define` writes these. `load_all` makes known what a data folder declares. Whoever is told of a data folder calls
it before names are looked up: the commands, worker processes, `prepare` and `run_job`.
"""

from __future__ import annotations

import copyreg
import hashlib
import json
import re
import warnings
from abc import ABCMeta
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import write_beside
from sslbench.core.options import Frozen
from sslbench.data.base import ClassInfo, Dataset, Form, Modality, Preprocessing, RawCase
from sslbench.data.own.layouts import TITLES, CaseFiles, Layout, read_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = r"[a-z0-9][a-z0-9_-]{0,63}"  # of a dataset of one's own


class Definition(Frozen):
    """The way own data are read and preprocessed: the file `definition.yaml`.

    `title` and the abbreviations `short` are for tables, and may be changed at any time. To change anything else is
    to define another dataset: prepare it again, and run it again.
    """

    name: str = Field(pattern=f"^{NAME}$", description="of the dataset, its folder and its recipe")
    title: str = Field(description="for people")
    layout: Layout = Field(description="of the source folder")
    classes: list[ClassInfo] = Field(min_length=1, description="of the labels 1, 2, ...")
    channels: list[str] = Field(min_length=1, description="of an image, in order")
    modality: Modality
    patients: str | None = Field(default=None, description="pattern that finds the patient in a case's name")
    foreground_from: int | None = Field(default=None, description="mask values from which a pixel is of the one class")
    preprocessings: dict[str, Preprocessing] = Field(min_length=1)
    measured_on: str = Field(description="the lists whose training images were measured")
    clipped_by: list[str] = Field(default=[], description="the cases whose labels showed what to clip CT to")
    cases: int = Field(gt=0, description="how many the source held")

    @property
    def identity(self) -> str:
        """Hash of what decides the prepared arrays beside a preprocessing."""
        names = [info.name for info in self.classes]
        parts = [self.layout, names, self.channels, self.modality, self.foreground_from]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class _OwnMeta(ABCMeta):
    """The type of own datasets' classes: they are made while running, so a worker process makes them again."""


class OwnDataset(Dataset, metaclass=_OwnMeta):
    """Data of the user's own, read as a definition file says."""

    definition: ClassVar[Definition]
    least_classes = 0

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The cases of a folder that is laid out as when it was defined.

        Raises:
            UsageError: its classes or channels have changed.
        """
        names = [info.name for info in self.classes]
        content = read_source(self.definition.layout, source, names, self.channels)
        for what, now, defined in (("classes", content.classes, names), ("channels", content.channels, self.channels)):
            if tuple(now) != tuple(defined):
                raise UsageError(
                    f"{source} has the {what} {', '.join(now)}, and {self.name} was defined with {', '.join(defined)}",
                    "give it another name, or define it anew with --force",
                )
        self.notes += content.notes
        patients = patients_of(content.cases, self.definition.patients)
        return [raw_case(case, patients[case.id], form) for case in content.cases]

    @classmethod
    def group_of(cls, id: str) -> str:
        pattern = cls.definition.patients
        return (_patient(id, pattern) if pattern else "") or id

    @classmethod
    def class_ids(cls, values: NDArray[Any]) -> NDArray[Any]:
        """Label files hold class ids; of two-valued masks, stored as pictures, the bright part is the class."""
        threshold = cls.definition.foreground_from
        return values if threshold is None else values >= threshold

    @classmethod
    def preprocessing_hash(cls, name: str) -> str:
        """The hash of a named preprocessing, and of how files are read: that may change here, as code does elsewhere.

        Raises:
            UnknownNameError: the dataset has none of that name.
        """
        parts = super().preprocessing_hash(name) + cls.definition.identity
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def dataset_class(definition: Definition) -> type[OwnDataset]:
    """The dataset that a definition describes."""
    title = TITLES[definition.layout]
    attributes = {
        "__module__": __name__,
        "__qualname__": f"own:{definition.name}",
        "__doc__": f"Own data: {title}, {definition.cases} cases.",
        "definition": definition,
        "name": definition.name,
        "title": definition.title,
        "classes": tuple(definition.classes),
        "channels": tuple(definition.channels),
        "modality": definition.modality,
        "preprocessings": dict(definition.preprocessings),
        "forms": (Form(definition.layout, title),),
        "official_cases": definition.cases,
        # A mask in black and white is told by its brightness, with a palette of greys too.
        "palette_indices": "always" if definition.foreground_from is None else "coloured",
        "source_hint": f"name its {title} again: sslbench prepare {definition.name} --source FOLDER",
    }
    return cast(type[OwnDataset], _OwnMeta(definition.name, (OwnDataset,), attributes))


def _pickled(kind: Any) -> Any:
    definition = getattr(kind, "definition", None)
    # The base class alone has a place where pickle can find it.
    return kind.__qualname__ if definition is None else (dataset_class, (definition,))


copyreg.pickle(_OwnMeta, _pickled)


def raw_case(case: CaseFiles, patient: str, form: Form) -> RawCase:
    """A case of a folder, as preparing takes it."""
    several = case.images if len(case.images) > 1 else ()
    return RawCase(case.id, patient, case.images[0], case.label, form, channels=several)


def patients_of(cases: Sequence[CaseFiles], pattern: str | None) -> dict[str, str]:
    """Case id -> patient: what the pattern's first group finds in the id, or the whole match; without one, the id.

    Raises:
        UsageError: the pattern is none, or finds no patient in a case.
    """
    if pattern is None:
        return {case.id: case.id for case in cases}
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"the patient pattern '{pattern}' is no regular expression: {error}") from None
    found = {}
    for case in cases:
        patient = _patient(case.id, pattern)
        if not patient:
            raise UsageError(
                f"the patient pattern '{pattern}' finds no patient in '{case.id}'", "for example: ^(p\\d+)"
            )
        found[case.id] = patient
    for id, patient in found.items():
        if found.get(patient, patient) != patient:
            raise UsageError(f"the patient '{patient}' of {id} is called as the case {patient} of another patient")
    return found


def _patient(id: str, pattern: str) -> str:
    """What a pattern finds in a case's id; empty where nothing."""
    match = re.search(pattern, id)
    return (match[1] if match.re.groups else match[0]) if match else ""


# ---------------------------------------------------------------------------------------------- what a folder declares


def load_all(data_dir: Path | str) -> None:
    """Make known what a data folder declares, in place of what another one did: datasets, recipes, split lists.

    A definition that cannot be read is left out with a warning: it must not stop the others.
    """
    root = Path(data_dir)
    registry.no_code_in(root)
    for name in registry.kept_files("dataset"):
        registry.unregister("dataset", name)
    known: dict[str, Path] = {}
    for path in _files(root, "definition.yaml"):
        try:
            definition = read_definition(path)
            registry.register("dataset", definition.name)(dataset_class(definition))
        except SSLBenchError as error:
            warnings.warn(f"own data left out: {error}", stacklevel=2)
            continue
        known[definition.name] = path
    registry.keep_files("dataset", known)
    registry.keep_files("recipe", {path.stem: path for path in _files(root, "recipes/*.yaml")})
    lists = {f"{path.parent.parent.name}/{path.stem}": path for path in _files(root, "splits/*.yaml")}
    registry.keep_files("splits", lists)


def _files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(f"*/{pattern}") if not path.name.startswith("."))


def read_definition(path: Path) -> Definition:
    """The definition in a file.

    Raises:
        UsageError: it is none, or that of another folder.
    """
    from sslbench.config.text import load_yaml, validated

    definition: Definition = validated(Definition, load_yaml(path), str(path))
    if definition.name != path.parent.name:
        raise UsageError(f"{path} is that of '{definition.name}'", "a dataset's folder has its name")
    return definition


def write_definition(path: Path, definition: Definition, comment: str) -> None:
    """Write a definition in the form that `read_definition` reads; another one that was there is kept beside."""
    from sslbench.config.text import yaml_text

    content = definition.model_dump(mode="json")
    for name, prep in definition.preprocessings.items():
        written = content["preprocessings"][name]
        defaults = {field.name: field.default for field in fields(Preprocessing)}
        content["preprocessings"][name] = {
            key: value for key, value in written.items() if getattr(prep, key) != defaults[key]
        }
    write_beside(path, f"# {comment}\n{yaml_text(content)}")
