"""New scans, segmented by a trained run in their own geometry: what `sslbench predict` does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch

import sslbench
from sslbench.core import registry
from sslbench.core.endings import ENDINGS, ending_of
from sslbench.core.errors import DataError, SSLBenchError, UnknownNameError, UsageError
from sslbench.core.files import read_json, save_nifti, write_json
from sslbench.data.base import Modality
from sslbench.data.preprocess import load_scan, preprocess, restore
from sslbench.execution.trained import TrainedRun
from sslbench.inference.sliding_window import InferenceProgress

if TYPE_CHECKING:
    import nibabel as nib

RECORD = "predicted-by.json"  # beside the label maps: whose they are


@dataclass
class PredictionResult:
    """The result of `predict`.

    Attributes:
        written: label maps that were made.
        there: those that an earlier call had made.
        failed: scans that could not be segmented, and why.
    """

    written: list[Path] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def find_scans(inputs: Sequence[Path], channels: int = 1) -> dict[str, tuple[Path, ...]]:
    """The scans that files and folders hold, by name: the file's without its ending.

    A folder stands for all images in it (not for those in its folders). Of scans with several channels each channel may
    be a file, named as nnU-Net names them: `CASE_0000.nii.gz`, `CASE_0001.nii.gz`.

    Args:
        inputs: files and folders.
        channels: of a scan.

    Raises:
        UsageError: an input that is not there, a folder without images, or two scans of one name.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in (file for given in inputs for file in _files(given)):
        name, number = path.name[: -len(ending_of(path))], 0
        numbered = re.fullmatch(r"(.+)_(\d{4})", name)
        if channels > 1 and numbered and int(numbered[2]) < channels:
            name, number = numbered[1], int(numbered[2])
        held = found.setdefault(name, {})
        if number in held:
            raise UsageError(f"{path} is a second {name} beside {held[number]}", "rename one, or predict them apart")
        held[number] = path
    return {name: tuple(held[number] for number in sorted(held)) for name, held in found.items()}


def _files(given: Path) -> list[Path]:
    if given.is_dir():
        files = [path for path in sorted(given.iterdir()) if path.is_file() and not path.name.startswith(".")]
        files = [path for path in files if ending_of(path)]
        if not files:
            raise UsageError(f"there is no image in {given}", f"files that can be read: {', '.join(ENDINGS)}")
        return files
    if not given.exists():
        raise UsageError(f"{given} does not exist", "name images, or folders of them")
    if not ending_of(given):
        raise UsageError(f"{given} is no image that can be read", f"files that can: {', '.join(ENDINGS)}")
    return [given]


def check_preprocessing(trained: TrainedRun) -> None:
    """Tell whether a new scan can be preprocessed as the run's were.

    Raises:
        UsageError: that takes its reference.
    """
    if trained.preprocessing.crop is None:
        return
    name = trained.predictor.recipe.dataset
    try:
        known = registry.component("dataset", name).preprocessings
    except SSLBenchError:
        known = {}
    others = [other for other, prep in known.items() if prep.crop is None]
    raise UsageError(
        f"{trained.run.directory.name} was trained on scans cut around their references ({trained.preprocessing_name}),"
        " and a new scan has none",
        f"train on whole scans: --set preprocessing={others[0]}" if others else "train on whole scans",
    )


def segment(
    trained: TrainedRun,
    name: str,
    files: Sequence[Path],
    modality: Modality | None = None,
    progress: InferenceProgress | None = None,
) -> nib.Nifti1Image:
    """The label map of a scan, in the scan's geometry.

    Args:
        trained: the run.
        name: what to call the scan.
        files: its file, or one per channel.
        modality: of the scan; None: that of the run's dataset.
        progress: told after every forward pass.

    Raises:
        DataError: a file that cannot be read, or is no such scan.
    """
    loaded = load_scan(name, files, trained.channels, trained.pixel_mm, modality or trained.modality)
    made = preprocess(loaded, trained.preprocessing)
    del loaded  # of a large scan, both at a time are gigabytes
    image, geometry = made.image, made.geometry
    del made
    labels = trained.predictor.segment(image if trained.channels > 1 else image[None], progress=progress)
    return restore(labels.cpu().numpy(), geometry)


def predict(
    trained: TrainedRun,
    scans: Mapping[str, Sequence[Path]],
    output: Path,
    modality: str | None = None,
    force: bool = False,
    starting: Callable[[str], InferenceProgress | None] = lambda name: None,
) -> PredictionResult:
    """Segment scans, one label map `NAME.nii.gz` each; a scan that cannot be read costs itself only.

    Args:
        trained: the run.
        scans: files by name, as `find_scans` gives them.
        output: folder for the label maps.
        modality: as for `segment`.
        force: make those again that are there.
        starting: told of each scan, and gives what is told of its forward passes.

    Raises:
        UsageError: the run's preprocessing takes a reference, no such modality, or the folder holds another run's
            label maps, or scans.
    """
    check_preprocessing(trained)
    known = get_args(Modality)
    if modality is not None and modality not in known:
        raise UnknownNameError("modality", modality, known)
    files = {path.resolve() for paths in scans.values() for path in paths}
    targets = {name: output / f"{name}.nii.gz" for name in scans}
    if clash := [path for path in targets.values() if path.resolve() in files]:
        raise UsageError(f"{clash[0]} is a scan: its label map would take its place", "name another folder with -o")
    identity = {"run": trained.run.name, "digest": trained.digest, "seed": trained.seed}
    _claim(output, identity, trained, force)
    outcome = PredictionResult()
    for name, paths in scans.items():
        if targets[name].exists() and not force:
            outcome.there.append(targets[name])
            continue
        try:
            image = segment(trained, name, paths, cast(Modality | None, modality), starting(name))
            save_nifti(image, targets[name])
        except DataError as error:
            outcome.failed[name] = str(error)
        except (MemoryError, torch.OutOfMemoryError):
            outcome.failed[name] = f"{paths[0]}: not enough memory"
        else:
            outcome.written.append(targets[name])
    return outcome


def _claim(output: Path, identity: Mapping[str, Any], trained: TrainedRun, force: bool) -> None:
    """Say in the folder whose label maps it holds: those of two runs must not pass for one's."""
    record = read_json(output / RECORD)
    other = isinstance(record, dict) and any(record.get(key) != value for key, value in identity.items())
    if other and not force:
        raise UsageError(
            f"{output} holds label maps of another run ({record.get('run')}, digest {str(record.get('digest'))[:8]})",
            "name another folder with -o, or --force to make them anew",
        )
    precision = trained.predictor.precision
    classes = {str(number): name for number, name in enumerate(trained.classes, start=1)}
    more = {"classes": classes, "precision": precision.name, "sslbench": sslbench.__version__}
    write_json(output / RECORD, {**identity, **more})
