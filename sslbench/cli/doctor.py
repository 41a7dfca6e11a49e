"""The findings of `sslbench doctor`: versions, hardware, folders, prepared data, and remedies where something is wrong.

Nothing is written but short-lived files that show whether a folder can be written and locked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

import sslbench
from sslbench.cli.listing import PLURALS
from sslbench.config.text import gib
from sslbench.core import registry, settings
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.data.own.dataset import load_all
from sslbench.runs.directory import RUNS, runs_below, system_lock

Status = Literal["ok", "warn", "fail"]
STATUSES: tuple[Status, ...] = ("ok", "warn", "fail")

# Disk space in bytes below which a results folder is worth a word: checkpoints and predictions of a few runs.
_LITTLE_SPACE = 2 * 2**30
# Variables that are no setting of the program.
_OTHER_VARIABLES = ("SSLBENCH_TEST_DATA",)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        area: what it belongs to: `software`, `hardware`, `places` or `data`.
        name: of the thing.
        status: `ok`, `warn` (it works, but may not be what was meant) or `fail`.
        message: what was found, in one line.
        remedy: what to do; empty where nothing is wrong.
        facts: the same for programs.
    """

    area: str
    name: str
    status: Status
    message: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The check as a JSON object."""
        return asdict(self)


def examine(
    data_dir: Path, results_dir: Path, verify: bool = False, progress: Callable[[str], None] | None = None
) -> list[Check]:
    """Look at everything, in the order in which it is shown; no check stops the others.

    Args:
        data_dir: prepared datasets.
        results_dir: runs and reports.
        verify: hold every prepared file against its hash.
        progress: told each file before it is read.
    """
    areas: list[Callable[[], Iterable[Check]]] = [
        _software,
        _components,
        _hardware,
        lambda: _places(data_dir, results_dir),
        lambda: _data(data_dir, verify, progress or (lambda file: None)),
    ]
    return [check for area in areas for check in area()]


def verdict(checks: Iterable[Check]) -> Status:
    """The worst status of all."""
    return max((check.status for check in checks), key=STATUSES.index, default="ok")


def next_step(checks: Iterable[Check], results_dir: Path) -> str:
    """What to type next: the remedy of what is broken; else what the runs that were begun want; else data, or a run."""
    found = list(checks)
    if broken := next((check.remedy for check in found if check.status == "fail" and check.remedy), None):
        return broken
    if asked := _of_runs(results_dir):
        return asked
    usable = [check.name.partition("/")[0] for check in found if check.area == "data" and check.facts.get("found")]
    if not usable:
        return "sslbench demo shows all of it on generated volumes; or sslbench prepare, see sslbench list datasets"
    dataset = next((name for name in usable if name != "phantom"), usable[0])
    grid = registry.component("dataset", dataset).default_grid
    return f"sslbench run --grid {grid}" if grid else f"sslbench run -r {dataset} -m supervised,cps --labeled BUDGET"


def _of_runs(results_dir: Path) -> str:
    """What to do with the runs of a results folder; empty where there are none."""
    states = Counter(run.state for run in runs_below(results_dir / RUNS))
    left = {state: count for state, count in states.items() if state not in ("finished", "running")}
    if left:
        told = ", ".join(f"{count} {state}" for state, count in left.items())
        again = "; --retry-failed takes failed ones again" if "failed" in left else ""
        return f"sslbench status names the runs that are left ({told}): the command that began them goes on{again}"
    if states["running"]:
        return "sslbench status --watch, until nothing is left"
    return "sslbench report, or sslbench report --html -o report.html" if states["finished"] else ""


# ------------------------------------------------------------------------------------------------------ software


def _software() -> Iterator[Check]:
    import platform

    yield Check("software", "python", "ok", f"{platform.python_version()} on {platform.platform()}")
    needed, extras = requirements()
    yield _self(bool(needed))
    missing = [name for name in needed if _installed(name) is None]
    outdated = {
        name: wanted
        for name, wanted in needed.items()
        if name not in missing and name != "torch" and not satisfies(str(_installed(name)), wanted)
    }
    yield _torch(needed.get("torch", ""))
    others = [name for name in needed if name != "torch"]
    found = ", ".join(f"{name} {_installed(name)}" for name in others if _installed(name))
    facts = {name: _installed(name) for name in others}
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        yield Check("software", "packages", "fail", f"not installed: {', '.join(missing)}", remedy, facts)
    elif outdated:
        wanted = ", ".join(f"{name} {_installed(name)} (needs {limits})" for name, limits in outdated.items())
        remedy = "pip install " + " ".join(f"'{name}{limits}'" for name, limits in outdated.items())
        yield Check("software", "packages", "warn", wanted, remedy, facts)
    else:
        yield Check("software", "packages", "ok", found, "", facts)
    for extra, names in extras.items():
        absent = [name for name in names if _installed(name) is None]
        said = f"[{extra}] not installed: {', '.join(absent)}" if absent else f"[{extra}] complete"
        facts = {name: _installed(name) for name in names}
        yield Check("software", "extras", "ok", f"{said} (optional)" if absent else said, "", {extra: facts})


def _self(installed: bool) -> Check:
    message = f"{sslbench.__version__} in {Path(sslbench.__file__).parent}"
    if not installed:
        return Check(
            "software", "sslbench", "warn", f"{message}, not installed as a package", "pip install -e . in the checkout"
        )
    return Check("software", "sslbench", "ok", message, "", {"version": sslbench.__version__})


def _torch(wanted: str) -> Check:
    try:
        import torch
    except Exception as error:  # a broken installation fails in ways of its own: OSError for a missing library
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Check("software", "torch", "fail", f"cannot be imported: {reason}", "pip install torch")
    from sslbench.execution.local import has_nvidia_card
    from sslbench.networks.precision import cudnn_name

    number = str(torch.__version__)
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    facts = {"version": number, "cuda": torch.version.cuda, "cudnn": cudnn}
    if cudnn:
        build += f", cuDNN {cudnn_name(cudnn)}"
    if faults := _cudnn_faults(cudnn):
        return Check("software", "torch", "warn", f"{number}: {faults}", "pip install 'torch>=2.11'", facts)
    if not satisfies(number, wanted):
        return Check("software", "torch", "warn", f"{number}, needs {wanted}", f"pip install 'torch{wanted}'", facts)
    if not torch.version.cuda and has_nvidia_card():
        return Check(
            "software",
            "torch",
            "warn",
            f"{number}, {build}, but this machine has an NVIDIA card",
            "install the CUDA build: pytorch.org/get-started",
            facts,
        )
    return Check("software", "torch", "ok", f"{number}, {build}", "", facts)


def _cudnn_faults(version: int | None) -> str:
    """What the cuDNN of this torch gets wrong; jobs keep away from it."""
    from sslbench.networks.precision import cudnn_fault

    return "; ".join(filter(None, (cudnn_fault(arithmetic, 3, version) for arithmetic in ("bf16", "tf32"))))


def requirements() -> tuple[dict[str, str], dict[str, list[str]]]:
    """The packages that an installed sslbench needs with their version limits, and those of each extra."""
    try:
        lines, names = requires("sslbench") or [], metadata("sslbench").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return {}, {}
    needed: dict[str, str] = {}
    extras: dict[str, list[str]] = {}
    for wanted in map(Requirement, lines):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            needed[wanted.name] = str(wanted.specifier)
            continue
        for extra in names:
            if wanted.marker.evaluate({"extra": extra}):
                extras.setdefault(extra, []).append(wanted.name)
    return needed, extras


def satisfies(number: str, limits: str) -> bool:
    """Tell whether a version, a pre-release too, is within limits such as `>=2.8,!=2.9.*` (PEP 440).

    A version that is not one in the sense of PEP 440, such as a developer's own build may have, counts as satisfied.
    """
    try:
        return SpecifierSet(limits).contains(Version(number), prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return True


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _components() -> Iterator[Check]:
    """Tell whether everything that is registered can be loaded, third parties' components included."""
    import warnings

    counts: dict[str, int] = {}
    faults: list[str] = []
    for kind in registry.KINDS:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                counts[kind] = sum(entry.preset_of is None for entry in registry.entries(kind))
            except Exception as error:  # whatever a broken module raises, the other checks go on
                faults.append(f"{kind}: {error}")
        faults += [str(line.message) for line in said if "cannot be loaded" in str(line.message)]
    if faults:
        remedy = "repair the package that it names, or uninstall it"
        yield Check("software", "components", "fail", "; ".join(faults), remedy, counts)
        return
    plurals = {kind: plural for plural, kind in PLURALS.items()}
    words = [f"{count} {kind if count == 1 else plurals[kind]}" for kind, count in counts.items() if count]
    yield Check("software", "components", "ok", ", ".join(words), "", counts)


# ------------------------------------------------------------------------------------------------------ hardware


def _hardware() -> Iterator[Check]:
    try:
        import torch
    except Exception:  # said under software
        return
    from sslbench.execution.fit import memory_of_machine
    from sslbench.execution.local import default_slots, unused_gpu
    from sslbench.runs.provenance import device_name

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, free = memory_of_machine()
    memory = f", {gib(total)} GiB of memory ({gib(free)} GiB free)" if total else ""
    cpu = torch.device("cpu")
    facts: dict[str, Any] = {"cores": os.cpu_count(), "usable": usable, "memory": total, "free": free}
    facts |= _bf16(cpu)
    restricted = "" if usable == os.cpu_count() else f", {usable} of them usable"
    yield Check("hardware", "cpu", "ok", f"{device_name(cpu)}{restricted}{memory}; {facts['auto']}", "", facts)
    slots = default_slots()
    threads = max(1, (os.cpu_count() or 1) // slots)
    plural = "" if slots == 1 else "s"
    message = f"{slots} job{plural} at a time, {threads} thread{'' if threads == 1 else 's'} each, unless -j says more"
    yield Check("hardware", "threads", "ok", message, "", {"slots": slots, "threads": threads})
    if torch.version.cuda and not torch.cuda.is_available():
        remedy = "check nvidia-smi, its driver and CUDA_VISIBLE_DEVICES; without a card: run --device cpu"
        yield Check("hardware", "gpu", "warn", unused_gpu(), remedy)
    elif not torch.cuda.is_available():
        yield Check("hardware", "gpu", "ok", "none: jobs run on the CPU")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _gpu(number)
    if torch.version.cuda and torch.cuda.is_available():
        yield _mps(os.environ)


def _mps(environment: Mapping[str, str]) -> Check:
    """Tell whether several jobs on a card would share it, or take turns: NVIDIA's multi-process service (MPS)."""
    control = shutil.which("nvidia-cuda-mps-control")
    pipe = Path(environment.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps")
    running = (pipe / "control").exists()
    facts = {"installed": control is not None, "running": running}
    if running:
        message = "running: jobs on one card share it"
    elif control:
        message = "not running: several jobs on one card (-j) take turns; nvidia-cuda-mps-control -d starts it"
    else:
        message = "not installed: several jobs on one card (-j) take turns"
    return Check("hardware", "mps", "ok", message, "", facts)


def _gpu(number: int) -> Check:
    import torch

    from sslbench.runs.provenance import nvidia_driver

    device = torch.device("cuda", number)
    name = f"cuda:{number}"
    try:
        free, total = torch.cuda.mem_get_info(device)
        _computes(device)
        facts = {"name": torch.cuda.get_device_name(device), "memory": total, "free": free, **_bf16(device)}
        facts["driver"] = nvidia_driver()
        capability = torch.cuda.get_device_capability(device)
    except RuntimeError as error:
        remedy = "check nvidia-smi; this torch may have no kernels for the card: install another build"
        return Check("hardware", name, "fail", f"cannot compute: {str(error).splitlines()[0]}", remedy)
    facts["capability"] = list(capability)
    message = f"{facts['name']}, {gib(total)} GiB ({gib(free)} GiB free), capability {capability[0]}.{capability[1]}"
    message += f", driver {facts['driver']}" if facts["driver"] else ""
    return Check("hardware", name, "ok", f"{message}; {facts['auto']}", "", facts)


def _computes(device: Any) -> None:
    """A sum on the device; a card that this build of torch has no kernels for fails here."""
    import torch

    float(torch.ones(8, device=device).sum())


def _bf16(device: Any) -> dict[str, Any]:
    """Report what the precision `auto` makes of a device, before a job's own network decides."""
    from sslbench.networks.precision import fast_bf16

    fast = fast_bf16(device)
    said = "auto tries bf16, network by network" if fast else "auto takes fp32: bf16 is not fast here"
    return {"fast_bf16": fast, "auto": said}


# -------------------------------------------------------------------------------------------------------- places


def _places(data_dir: Path, results_dir: Path) -> Iterator[Check]:
    yield _variables()
    yield _folder("data", data_dir, "prepared datasets")
    results = _folder("results", results_dir, "runs and reports")
    yield results
    if results.status != "fail":
        yield _locks(results_dir)


def _variables() -> Check:
    mine = {name: value for name, value in sorted(os.environ.items()) if name.startswith("SSLBENCH_")}
    unknown = [name for name in mine if name not in settings.VARIABLES and name not in _OTHER_VARIABLES]
    if unknown:
        known = ", ".join(settings.VARIABLES)
        message = f"{', '.join(unknown)}: no such variable, it has no effect"
        return Check("places", "environment", "warn", message, f"known: {known}", mine)
    said = ", ".join(f"{name}={value}" for name, value in mine.items()) or "no SSLBENCH_* variable is set"
    return Check("places", "environment", "ok", said, "", mine)


def _folder(name: str, folder: Path, holds: str) -> Check:
    place = _existing(folder)
    exists = folder.is_dir()
    free = shutil.disk_usage(place).free
    facts = {"path": str(folder.absolute()), "exists": exists, "writable": _writable(place), "free": free}
    message = f"{folder.absolute()}, {'' if exists else 'not there yet, '}{gib(free)} GiB free"
    needed = name == "results"
    choose = f"choose another with --{name}-dir or SSLBENCH_{name.upper()}"
    if place.is_file() or (folder.exists() and not exists):
        return Check("places", name, "fail", f"{place} is not a folder", choose, facts)
    if not facts["writable"]:
        # A data folder that is shared and read-only serves training; results must be written.
        status: Status = "fail" if needed or not exists else "warn"
        return Check("places", name, status, f"{message}, cannot be written", f"change its rights, or {choose}", facts)
    if needed and free < _LITTLE_SPACE:
        remedy = f"free some space for {holds}, or {choose}"
        return Check("places", name, "warn", message, remedy, facts)
    return Check("places", name, "ok", f"{message}, writable", "", facts)


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _locks(results_dir: Path) -> Check:
    """Tell whether a lock keeps a second holder out: what keeps two launchers from repeating each other's work."""
    remedy = "put the results on a local disk, or mount the shared one with file locks"
    try:
        with tempfile.TemporaryDirectory(dir=_existing(results_dir), prefix=".lock-test-") as folder:
            path = Path(folder) / "lock"
            with system_lock(path).acquire(timeout=0):
                try:
                    system_lock(path).acquire(timeout=0).lock.release()
                except Timeout:
                    return Check("places", "locks", "ok", "a lock keeps a second launcher out")
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        message = f"there are no locks there, so that a killed job waits for a minute before it goes on: {why}"
        return Check("places", "locks", "warn", message, remedy)
    message = "a lock does not keep a second launcher out: heartbeats tell alone who works on a run"
    return Check("places", "locks", "warn", message, remedy)


# ---------------------------------------------------------------------------------------------------------- data


def _data(data_dir: Path, verify: bool, progress: Callable[[str], None]) -> Iterator[Check]:
    load_all(data_dir)
    found = False
    for dataset in registry.names("dataset"):
        for folder in sorted(path for path in (data_dir / dataset).glob("*") if _looks_prepared(path)):
            found = True
            yield _prepared(data_dir, dataset, folder.name, verify, progress)
    if not found:
        yield Check("data", "datasets", "warn", f"none is prepared in {data_dir}", "sslbench prepare phantom")


def _looks_prepared(folder: Path) -> bool:
    """A preparation, finished or not; the raw files of a computed dataset are none."""
    return (folder / "dataset.json").exists() or (folder / "cases").is_dir()


def _prepared(data_dir: Path, dataset: str, preprocessing: str, verify: bool, progress: Callable[[str], None]) -> Check:
    from sslbench.data.store import Store, case_files, command, sha256

    name = f"{dataset}/{preprocessing}"
    try:
        store = Store.open(data_dir, dataset, preprocessing)
        facts: dict[str, Any] = {"found": len(store.cases), "official": store.official, "verified": verify}
        damaged = []
        if verify:
            for id, case in store.cases.items():
                for kind, recorded in case.files.items():
                    path = case_files(store.folder, id)[kind]
                    progress(str(path))
                    if sha256(path) != recorded["sha256"]:
                        damaged.append(str(path))
    except SSLBenchError as error:
        # What was never finished stands in nobody's way; what was, and is damaged, does.
        status: Status = "warn" if isinstance(error, UsageError) else "fail"
        return Check("data", name, status, error.message, error.hint)
    except OSError as error:
        return Check("data", name, "fail", f"{error.filename}: {error.strerror}", f"sslbench prepare {dataset}")
    except Exception as error:  # a component that cannot be loaded is told under software
        return Check("data", name, "fail", str(error))
    if damaged:
        first = f"{damaged[0]} is damaged" + (f", and {len(damaged) - 1} more" if len(damaged) > 1 else "")
        return Check(
            "data",
            name,
            "fail",
            first,
            f"run {command(store.dataset, preprocessing, force=True)}",
            facts | {"damaged": damaged},
        )
    subset = "a subset, " if store.is_subset else ""
    checked = "every file as prepared" if verify else "all files there in full size; --verify reads them"
    message = f"{facts['found']} of {facts['official']} cases, {subset}{checked}"
    return Check("data", name, "ok", message, "", facts)
