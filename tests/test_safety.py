"""Nothing that is read from a data or results folder runs, and nothing is written outside of the folders chosen."""

from __future__ import annotations

import ast
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import sslbench
from sslbench.config.grid import Grid, load_grid
from sslbench.config.splits import parse_splits
from sslbench.config.text import load_yaml
from sslbench.core import registry
from sslbench.core.errors import DataError, SSLBenchError, UsageError
from sslbench.core.files import is_plain_name
from sslbench.data.base import RawCase
from sslbench.data.files.archives import unpack
from sslbench.data.files.arrays import array_shape, read_array
from sslbench.data.prepare import prepare
from sslbench.data.store import Store
from sslbench.runs.collect import collect
from sslbench.runs.directory import Run
from sslbench.training.checkpoint import Checkpoints

PACKAGE = Path(sslbench.__file__).parent


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def crater(tmp_path: Path) -> Iterator[Path]:
    """What exists once something was run; a test that has this fixture fails then."""
    place = tmp_path / "crater"
    yield place
    assert not place.exists()


# --------------------------------------------------------------------------------------------------- what the code says

# Where the package pickles: between its own processes, over their own pipes.
_PIPES = {"metrics/pool.py"}
_NEVER = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"}


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _faults(source: str, place: str) -> list[str]:
    found = []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if place not in _PIPES:
            found += [f"imports {name}" for name in names if name in ("pickle", "dill", "marshal", "shelve", "joblib")]
    for name, call in _calls(tree):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        last = name.rpartition(".")[2]
        if name in _NEVER:
            found.append(name)
        if given.get("shell", "False") != "False":
            found.append(f"{name} with a shell")
        if name == "yaml.load" and given.get("Loader") != "_Loader":
            found.append("yaml.load without the safe loader")
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load that unpickles")
        if last in ("load", "save") and name.startswith(("np.", "numpy.")) and given.get("allow_pickle") != "False":
            found.append(f"{name} without allow_pickle=False")
        if given.get("allow_pickle", "False") != "False":
            found.append(f"{name} with allow_pickle")
        if last in ("extractall", "extract") or name == "shutil.unpack_archive":
            found.append(f"{name} writes where an archive says")
        if name.startswith("subprocess.") and call.args and not isinstance(call.args[0], ast.List | ast.Name):
            found.append(f"{name} of no list")
    return [f"{place}: {fault}" for fault in found]


def test_the_package_runs_nothing_that_it_reads() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 200
    faults = [_faults(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()) for path in files]
    assert [fault for found in faults for fault in found] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "exec('1')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls')",
        "subprocess.run(f'ls {x}')",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
    ],
)
def test_the_scan_finds(line: str) -> None:
    assert _faults(line, "somewhere.py")


def test_both_loaders_are_safe() -> None:
    from sslbench.config import text
    from sslbench.runs import directory

    for loader in (text._Loader, directory._Loader):
        assert issubclass(loader, yaml.constructor.SafeConstructor)


# ----------------------------------------------------------------------------------------------------- files that bite


def test_a_checkpoint_is_not_unpickled(tmp_path: Path, crater: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("step-00000001.pt", "best.pt"):
        torch.save({"weights": Bomb(crater)}, folder / name)
    (folder / "step-00000002.pt").write_bytes(pickle.dumps(Bomb(crater)))
    checkpoints = Checkpoints(folder)
    assert checkpoints.load() is None
    assert len(checkpoints.unreadable) == 2
    with pytest.raises(SSLBenchError, match=r"best\.pt cannot be read"):
        checkpoints.load_best("best")


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_arrays_of_objects_are_not_unpickled(tmp_path: Path, crater: Path, ending: str) -> None:
    path = tmp_path / "case.npy"  # an archive of arrays is told by its first bytes
    content = np.array([Bomb(crater)], dtype=object)
    with path.open("wb") as file:
        if ending == ".npz":
            np.savez(file, image=content, label=content)
        else:
            np.save(file, content, allow_pickle=True)
    assert array_shape(path) is None
    form = registry.component("dataset", "synapse").forms[0]
    with pytest.raises(DataError, match=r"several arrays|Python objects"):
        read_array(RawCase("case", "case", path, path, form), "image")


_YAML = "!!python/object/apply:os.mkdir ['{}']"


def test_yaml_makes_no_objects(tmp_path: Path, crater: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(f"jobs: {_YAML.format(crater)}\n")
    for read in (load_yaml, lambda path: load_grid(str(path))):
        with pytest.raises(UsageError, match="not valid YAML"):
            read(path)
    run = tmp_path / "results/runs/phantom/20pct/mt+default/seed-0-aaaaaaaa"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"job: {_YAML.format(crater)}\n")
    assert Run(run).state == "damaged"


@pytest.mark.parametrize("member", ["../x", "a/../../x", "/tmp/x", "C:/x", "..\\x"])
def test_archives_stay_in_their_folder(tmp_path: Path, member: str) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"x")
    inside = tmp_path / "in"
    inside.mkdir()
    with pytest.raises(UsageError, match="outside of its folder"):
        unpack(path, inside / "data")
    assert [found.name for found in tmp_path.iterdir() if found != path] == ["in"]
    assert not [found for found in inside.rglob("*") if found.is_file() and not found.name.endswith(".lock")]


# ----------------------------------------------------------------------------------------------- names that lead astray

_ASTRAY = ["../x", "/x", "a/b", "..", ".", "", "a\\b", "a\0", "a\nb"]


@pytest.mark.parametrize("name", _ASTRAY)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["0001", "patient001_frame01", "18-09926B_2019-05-08 00_13_33-lv1", "a..b", "é"])
def test_names_of_cases(name: str) -> None:
    assert is_plain_name(name)


def test_a_case_cannot_be_called_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sslbench.data import prepare as module

    found = [RawCase("../../x", "x", tmp_path / "x.nii.gz", tmp_path / "x.nii.gz", None)]  # type: ignore[arg-type]
    monkeypatch.setattr(module, "_find", lambda *arguments: found)
    with pytest.raises(UsageError, match="no name of a case"):
        prepare("phantom", data_dir=tmp_path / "data")
    assert not (tmp_path / "data/x.image.npy").exists()


def test_a_prepared_case_cannot_be_called_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sslbench.data.store import Case, fingerprint

    kind = registry.component("dataset", "phantom")
    preprocessing = next(iter(kind.preprocessings))
    fields = {
        "group": "x",
        "shape": [1],
        "spacing_mm": [1.0],
        "class_voxels": [],
        "geometry": {},
        "files": {"image": {"bytes": 0, "sha256": "x"}},
        "statistics": dict.fromkeys(("min", "max", "mean", "std"), 0.0),
        "info": {},
    }
    index = {
        "format": 2,
        "version": kind.version,
        "preprocessing_hash": kind.preprocessing_hash(preprocessing),
        "cases": {"../x": fields},
        "options": {},
        "official": 1,
        "form": kind.forms[0].name,
        "spacing": "header",
        "fingerprint": fingerprint({"../x": Case.from_json("../x", fields)}),
    }
    folder = tmp_path / "phantom" / preprocessing
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="no name of a case"):
        Store.open(tmp_path, "phantom", preprocessing)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", ".."])
def test_a_grid_and_a_budget_cannot_be_called_by_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        Grid(name=name, jobs=[])
    lists = {"train": ["a"], "test": ["b"], "budgets": {name: {"labeled": ["a"]}}}
    with pytest.raises(UsageError, match="cannot be called"):
        parse_splits(lists, "phantom", "toy")


@pytest.mark.parametrize("where", ["../../x/seed-0-aaaaaaaa", "/tmp/x/seed-0-aaaaaaaa"])
def test_a_record_cannot_name_a_run_outside(tmp_path: Path, where: str) -> None:
    from sslbench.runs.collect import COLUMNS

    values = dict.fromkeys(COLUMNS, "x") | {"seed": "0", "digest": "a" * 64, "run": where, "value": "0.5"}
    values |= {"class_id": "1", "ref_voxels": "1", "pred_voxels": "1", "state": "both", "unit": "fraction"}
    path = tmp_path / "cases.csv"
    path.write_text(",".join(COLUMNS) + "\n" + ",".join(values[column] for column in COLUMNS) + "\n")
    with pytest.raises(UsageError, match="outside of its folder"):
        collect(path)


# ------------------------------------------------------------------------------------------------------------ modules


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(registry, "_data_only", set())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_results_bring_no_code(working_folder: Path, crater: Path) -> None:
    results = working_folder / "outcomes"
    (results / "package").mkdir(parents=True)
    for name in ("evil", "package/__init__", "package/evil"):
        (results / f"{name}.py").write_text(f"import os\nos.mkdir({str(crater)!r})\n")
    run = results / "runs/phantom/20pct/mt+default/seed-0-aaaaaaaa"
    run.mkdir(parents=True)
    job = {"recipe": "phantom", "method": "m", "loss": "default", "plugin": None, "labeled": "20pct", "seed": 0}
    modules = {"method": {"m": "outcomes.evil:Method"}}
    (run / "config.yaml").write_text(yaml.safe_dump({"job": job, "digest": "a" * 64, "modules": modules}))
    assert Run(run).values == {}
    for name in ("m", "outcomes.evil:Method", "outcomes.package.evil:Method"):
        with pytest.raises(UsageError, match="lies among data or results"):
            registry.get("method", name)


def test_modules_of_the_working_folder_are_imported(working_folder: Path) -> None:
    registry.no_code_in(working_folder)
    (working_folder / "mine_of_safety.py").write_text("value = 1\n")
    with pytest.raises(UsageError, match="has no Method"):
        registry.get("method", "mine_of_safety:Method")


# --------------------------------------------------------------------------------------------------------- provenance

# Who may look at the environment: for sslbench's own variables, for a terminal's width, or to hand it to a child.
_ENVIRONMENT = {
    "cli/console.py": "COLUMNS",
    "cli/doctor.py": "SSLBENCH_",
    "cli/run.py": "SLURM_ARRAY_TASK_ID",
    "core/settings.py": "SSLBENCH_",
    "execution/environment.py": "",
    "execution/executors.py": "",
    "execution/slurm.py": "",
    "metrics/pool.py": "PYTHONPATH",
    "runs/provenance.py": "CUBLAS_WORKSPACE_CONFIG",
}


def test_no_record_looks_at_the_environment_or_the_user() -> None:
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(text)
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"getpass.getuser", "os.getlogin", "os.getuid", "Path.home"}, place
        if names & {"os.environ", "os.getenv"}:
            seen.add(place)
            assert place in _ENVIRONMENT, f"{place} reads the environment"
            assert _ENVIRONMENT[place] in text
    assert seen <= {*_ENVIRONMENT}
