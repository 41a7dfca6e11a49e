"""`module:Class` in place of a registered name: what it means, where it may stand, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from sslbench.cli.show import describe
from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from sslbench.config.text import parse_component
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.data.own.dataset import load_all
from sslbench.data.prepare import prepare
from sslbench.reporting.labels import method_group, row_label
from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.jobs import TINY, tiny_job

ICT = '''
from pydantic import BaseModel, ConfigDict, Field
from sslbench import Method
from sslbench.losses.consistency import mse_consistency

class ICTOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    mix: float = Field(default=0.3, ge=0, le=1, description="share of the other patch")

class ICT(Method):
    """The prediction of a mixture is to be the mixture of the predictions."""
    Options = ICTOptions
    term_kinds = ("label", "consistency")

    def __init__(self, options, build, loss, statistics):
        super().__init__(options, build, loss, statistics)
        self.net = build("net")

    def training_step(self, batch, step):
        x, y, L, share = batch.image["weak"], batch.label["weak"], batch.num_labeled, self.options.mix
        logits = self.net(x)
        self.loss.observe(step, "net", logits, y)
        target = logits[L:].detach().float().softmax(1)
        mixed = self.net((1 - share) * x[L:] + share * x[L:].roll(1, 0))
        wanted = (1 - share) * target + share * target.roll(1, 0)
        own = lambda: mse_consistency(mixed, wanted)
        soft = self.loss.consistency(mixed, own, key="net", reference=("net", wanted))
        return {"loss": self.loss.supervised(logits[:L], y[:L], key="net") + step.consistency_weight * soft}

    def predict(self, x, key=None):
        return self.net(x).float().softmax(1)
'''

OTHERS = '''
import dataclasses
from sslbench import Loss, Plugin, Weighting, register
from sslbench.metrics.published import NATIVE
from sslbench.networks.vnet import VNet
from sslbench.methods.mt import MeanTeacher
from sslbench.losses.gradient_aware import GALoss

class Steep(Loss):
    """The default, steeper."""
    changes = ("label", "pseudo")
    def ce_term(self, term):
        return 2 * super().ce_term(term)

class Declared(Steep):
    version = 5
    title = "DECL"

class Net(VNet):
    """A V-Net by another name."""

class Plain(Plugin):
    """Adds nothing."""
    def terms(self, batch, step):
        return {}

class Even(Weighting):
    """Weighs nothing."""
    def observe(self, step, logits, labels):
        return logits.new_ones(self.num_classes)
    def update(self, observation):
        return observation

class Family:
    class Inner(MeanTeacher):
        """Nested."""

@register("loss", "called", aliases=("named",))
class Called(GALoss):
    """Registered."""

register("loss", "called_so", preset_of="called", set={"gamma": 0.7}, title="SO")

mine = dataclasses.replace(NATIVE, name="mine-native", version=3)
number = 3
def function(): ...
'''

TOY = '''
import nibabel as nib
import numpy as np
from sslbench.data.base import ClassInfo, Dataset, Preprocessing, RawCase

class Toy(Dataset):
    """Two boxes in noise."""
    name, title, official_cases = "toy", "Toy boxes", 8
    classes = (ClassInfo("box", "bx"), ClassInfo("lid", "ld"))
    preprocessings = {"plain": Preprocessing(axes="xyz", scale="zscore", description="as\\nit is")}
    generated_ids = tuple(f"t{number}" for number in range(8))

    def generate(self, folder, case_id):
        random = np.random.default_rng(int(case_id[1:]))
        label = np.zeros((20, 22, 18), np.uint8)
        label[4:12, 4:12, 4:12], label[13:16, 4:12, 4:12] = 1, 2
        image = label + random.normal(0, 0.2, label.shape)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, voxels in (("image", image.astype(np.float32)), ("label", label)):
            nib.Nifti1Image(voxels, np.eye(4)).to_filename(folder / f"{case_id}.{kind}.nii.gz")

    def cases_of(self, form, source):
        images = sorted(source.glob("*.image.nii.gz"))
        return [
            RawCase(path.name[:2], path.name[:2], path, path.with_name(f"{path.name[:2]}.label.nii.gz"), form)
            for path in images
        ]
'''

MODULES = {"refs_ict": ICT, "refs_others": OTHERS, "refs_toy": TOY}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules of the user's; what they register is forgotten afterwards."""
    before = {kind: dict(entries) for kind, entries in registry._entries.items()}
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_homes", {})
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for kind, entries in before.items():
        for name in {*registry._entries[kind]} - {*entries}:
            if name in registry.builtin(kind):
                continue  # a module of ours registers once
            registry.unregister(kind, name)
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("refs_")]:
        del sys.modules[name]
    for kind, name in (("protocol", "mine-native"), ("loss", "called_so")):
        registry.unregister(kind, name)


# ---------------------------------------------------------------------------------------------------- what it means


def test_a_class_beside_the_user_is_found_and_goes_by_its_reference(here: Path) -> None:
    entry = registry.get("method", "refs_ict:ICT")
    assert (entry.name, entry.target.__name__, entry.title) == ("refs_ict:ICT", "ICT", "ICT")
    assert registry.component("method", "refs_ict:ICT") is entry.target
    assert "refs_ict:ICT" not in registry.names("method")
    assert registry.component("method", "refs_others:Family.Inner").__doc__ == "Nested."


def test_a_class_in_a_package_is_found_where_it_is_defined(here: Path) -> None:
    (here / "refs_package").mkdir()
    (here / "refs_package" / "__init__.py").write_text("from refs_package.parts import ICT\n")
    (here / "refs_package" / "parts.py").write_text(ICT)
    for spelling in ("refs_package:ICT", "refs_package.parts:ICT"):
        assert registry.get("method", spelling).name == "refs_package.parts:ICT"


def test_a_registered_class_is_the_entry_of_its_name(here: Path) -> None:
    entry = registry.get("loss", "refs_others:Called")
    assert entry.name == "called" and registry.get("loss", "called") is entry is registry.get("loss", "named")
    assert registry.get("method", "refs_others:MeanTeacher").name == "mt"
    job = tiny_job("mt", "refs_others:GALoss[gamma=0.75]")
    assert job.digest() == tiny_job("mt", "ga[gamma=0.75]").digest()
    assert tiny_job(loss="refs_others:Called").canonical().loss == "called"


def test_datasets_and_protocols_go_by_their_own_name(here: Path) -> None:
    assert registry.get("dataset", "refs_toy:Toy").name == "toy"
    assert registry.get("protocol", "refs_others:mine") is registry.get("protocol", "mine-native")
    job = tiny_job(set={"protocol": "refs_others:mine"})
    assert job.resolved.recipe.protocol == "mine-native"
    assert job.resolved.homes == {"protocol": {"mine-native": "refs_others:mine"}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.b:C[x=1,y=[1, 2]]", ("a.b:C", {"x": 1, "y": [1, 2]})),
        ("a:B.C", ("a:B.C", {})),
        ("cps[weighting=my:W]", ("cps", {"weighting": "my:W"})),
        ("cps[weighting=my:W[k=2]]", ("cps", {"weighting": "my:W[k=2]"})),
    ],
)
def test_references_are_read_with_their_options(text: str, found: tuple[str, dict[str, Any]]) -> None:
    assert parse_component(text) == found


@pytest.mark.parametrize("text", ["a:", ":B", "a:B:C", "a b:C", "a:B[x"])
def test_what_is_no_reference_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        parse_component(text)


# ------------------------------------------------------------------------------------------------------ in a job


def test_every_part_of_a_job_may_be_a_reference(here: Path) -> None:
    job = tiny_job(
        "cps[weighting=refs_others:Even]",
        "refs_others:Steep",
        plugin="refs_others:Plain",
        set={"network.name": "refs_others:Net", "protocol": "refs_others:mine"},
    )
    resolved = job.resolved
    assert (resolved.loss["name"], (resolved.plugin or {})["name"]) == ("refs_others:Steep", "refs_others:Plain")
    assert resolved.recipe.network.name == "refs_others:Net"
    assert {spec["name"] for spec in resolved.weightings.values()} == {"refs_others:Even"}
    cell = job.directory.parts[2]
    assert cell.startswith("cps+refs_others.Steep+refs_others.Plain~") and not set(':*?"<>|\\') & set(
        str(job.directory)
    )
    assert Job(**yaml.safe_load(yaml.safe_dump(job.canonical().model_dump()))).digest() == job.digest()


def test_options_of_a_reference_are_checked_and_reduced(here: Path) -> None:
    plain, default, half = (tiny_job(f"refs_ict:ICT{options}") for options in ("", "[mix=0.3]", "[mix=0.5]"))
    assert plain.canonical() == default.canonical() and plain.digest() == default.digest() != half.digest()
    assert half.canonical().set["method.mix"] == 0.5
    with pytest.raises(UsageError, match="unknown field in method refs_ict:ICT: 'mixx'"):
        tiny_job("refs_ict:ICT[mixx=1]").digest()


def test_a_grid_may_name_references(here: Path) -> None:
    (here / "grid.yaml").write_text(
        "recipe: phantom\nlabeled: ['20%']\nseeds: 0\n"
        "jobs:\n  - {method: [refs_ict:ICT, mt], loss: [refs_others:Steep]}\n"
        "exclude:\n  - {method: mt}\n"
    )
    (job,) = load_grid("grid.yaml").expand()
    assert (job.method, job.loss) == ("refs_ict:ICT", "refs_others:Steep")


def test_the_digest_tells_classes_of_one_name_apart(here: Path) -> None:
    (here / "refs_twin.py").write_text(ICT)
    (here / "refs_rival.py").write_text(OTHERS)
    assert tiny_job("refs_ict:ICT").digest() != tiny_job("refs_twin:ICT").digest()
    first = tiny_job(loss="refs_others:Called").digest()
    for name in ("called_so", "called"):
        registry.unregister("loss", name)
    assert tiny_job(loss="refs_rival:Called").canonical().loss == "called"
    assert tiny_job(loss="refs_rival:Called").digest() != first


def test_the_digest_follows_the_version_that_a_class_declares(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny_job(loss="refs_others:Declared").digest()
    monkeypatch.setattr(registry.component("loss", "refs_others:Declared"), "version", 6)
    assert tiny_job(loss="refs_others:Declared").digest() != before


def test_a_run_directory_says_where_its_names_are_found(here: Path) -> None:
    run = Run(here / "run")
    run.write_config(tiny_job("refs_ict:ICT", "refs_others:Called[gamma=0.7]"))
    content = yaml.safe_load(run.config.read_text())
    assert (content["job"]["method"], content["job"]["loss"]) == ("refs_ict:ICT", "called_so")
    assert content["modules"] == {"loss": dict.fromkeys(("called", "called_so"), "refs_others:Called")}
    for name in ("called_so", "called"):
        registry.unregister("loss", name)
    del sys.modules["refs_others"]
    registry._homes.clear()
    assert run.load_job().digest() == content["digest"]
    ours = Run(here / "ours")
    ours.write_config(tiny_job())
    assert "modules" not in yaml.safe_load(ours.config.read_text())


# --------------------------------------------------------------------------------------------------- what is shown


def test_a_class_without_a_title_is_called_by_its_name(here: Path) -> None:
    assert row_label("refs_ict:ICT", "default", "", {}) == "ICT"
    assert row_label("refs_ict:ICT", "refs_others:Declared", "", {}) == "DECL-ICT"
    assert row_label("refs_others:Family.Inner", "refs_others:Steep", "refs_others:Plain", {}) == "Plain-Steep-Inner"
    assert row_label("no_such_module:ICT", "ga", "", {}) == "GA-ICT"
    assert (method_group("refs_ict:ICT"), method_group("no_such_module:ICT")) == ("General", "Other")


def test_a_version_belongs_to_the_class_that_sets_it(here: Path) -> None:
    shown = {name: describe("loss", f"refs_others:{name}")["version"] for name in ("Steep", "Declared")}
    assert shown == {"Steep": 1, "Declared": 5} and describe("loss", "default")["version"] == 2
    code, out, _ = call("show", "method", "refs_ict:ICT")
    assert code == 0 and "mix" in out and "ICT" in out


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("kind", "reference", "said"),
    [
        ("method", "refs_nowhere:ICT", "refs_nowhere cannot be imported: .*No module named.* looked for in"),
        ("method", "refs_ict.py:ICT", "a module is named without .py: refs_ict"),
        ("method", "refs_ict:ICTT", "the module refs_ict has no ICTT .did you mean ICT"),
        ("method", "refs_ict:ICT.Missing", "ICT in the module refs_ict has no Missing"),
        ("method", "refs_broken:ICT", "refs_broken cannot be imported: ValueError: no luck today"),
        ("method", "refs_leaves:ICT", "refs_leaves cannot be imported: SystemExit"),
        ("method", "refs_syntax:ICT", "refs_syntax cannot be imported: SyntaxError"),
        ("method", "refs_others:Steep", "is no method: it is a loss, not a class that derives from .*Method"),
        ("loss", "refs_ict:ICT", "is no loss: it is a method"),
        ("loss", "refs_others:function", "is no loss: it is of type function"),
        ("protocol", "refs_others:number", "is no protocol: it is of type int, not an instance of .*Protocol"),
        ("loss", "refs_clash:Thief", "refs_clash cannot be imported: the loss name 'ga' is taken"),
        ("dataset", "refs_clash:Nameless", "lacks name "),
        ("dataset", "refs_clash:Synapse", "cannot be called 'synapse': the dataset name 'synapse' is taken"),
        ("dataset", "refs_clash:Bare", "lacks title, classes, preprocessings, official_cases and cases_of"),
        ("method", "refs_ict:Method", "is the base class itself"),
        ("method", "refs_ict:", "cannot read"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(here: Path, kind: str, reference: str, said: str) -> None:
    (here / "refs_broken.py").write_text("raise ValueError('no luck\\ntoday')\n")
    (here / "refs_leaves.py").write_text("import sys\nsys.exit(3)\n")
    (here / "refs_syntax.py").write_text("class ICT(:\n")
    (here / "refs_clash.py").write_text(
        "from sslbench.data.base import Dataset\n"
        "class Bare(Dataset):\n    name = 'bare'\n"
        "class Nameless(Dataset):\n    title, classes, preprocessings, official_cases = '', (), {}, 1\n"
        "    def cases_of(self, form, source): return []\n"
        "class Synapse(Nameless):\n    name = 'synapse'\n"
        "def __getattr__(name):\n"
        "    raise AttributeError(name)\n"
    )
    if reference.endswith("Thief"):
        (here / "refs_clash.py").write_text(
            "from sslbench import Loss, register\n@register('loss', 'ga')\nclass Thief(Loss): ...\n"
        )
    with pytest.raises(UsageError, match=said) as error:
        registry.get(kind, reference)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_a_name_with_a_colon_cannot_be_registered() -> None:
    with pytest.raises(Exception, match="has a colon"):
        registry.register("loss", "a:B")


# ------------------------------------------------------------------------------------------ a dataset that is a class


def test_a_dataset_that_is_a_class_gets_lists_and_a_recipe(here: Path) -> None:
    report = prepare("refs_toy:Toy", data_dir=here / "data", workers=1)
    assert not report.failed and report.written == 8
    assert [note.split(":")[0] for note in report.notes][-2:] == [
        "splits drawn-0",
        f"recipe {here}/data/toy/recipes/toy.yaml",
    ]
    path = here / "data/toy/recipes/toy.yaml"
    recipe = yaml.safe_load(path.read_text())
    assert recipe["dataset"] == "refs_toy:Toy" and recipe["patch_size"] == [16, 16, 16]
    assert recipe["extends"] == "generic/own-3d" and recipe["inference"] == {"stride": [8, 8, 8]}
    # Another process knows the data folder alone.
    registry.unregister("dataset", "toy")
    registry._homes.clear()
    load_all(here / "data")
    job = Job(recipe="toy", method="mt", labeled="20%")
    assert job.resolved.recipe.dataset == "toy" and job.resolved.homes == {"dataset": {"toy": "refs_toy:Toy"}}
    path.write_text(path.read_text() + "seeds: [5]\n")
    again = prepare("refs_toy:Toy", data_dir=here / "data", workers=1)
    assert again.unchanged == 8 and not [note for note in again.notes if "recipe" in note]
    assert yaml.safe_load(path.read_text())["seeds"] == [5]


def test_data_without_enough_patients_are_prepared_without_a_recipe(here: Path) -> None:
    kind = registry.component("dataset", "refs_toy:Toy")
    kind.generated_ids = ("t0",)
    report = prepare("refs_toy:Toy", data_dir=here / "data", workers=1)
    assert report.written == 1 and any(note.startswith("no recipe was planned: ") for note in report.notes)


# --------------------------------------------------------------------------------------------- from an empty folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a folder that holds two files of the user's; the run is made."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mine.py").write_text(ICT)
    (folder / "toys.py").write_text(TOY)

    def command(*arguments: str, at: Path = folder) -> subprocess.CompletedProcess[str]:
        # As the installed script, which has its own folder on the path and not the working folder.
        start = "import sys; sys.path[:1] = []; from sslbench.cli import main; sys.argv[0] = 'sslbench'; main()"
        places = {"SSLBENCH_DATA": str(folder / "data"), "SSLBENCH_RESULTS": str(folder / "results"), "COLUMNS": "200"}
        root = str(Path(registry.__file__).parents[2])
        environment = {**os.environ, **places, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", start, *arguments],
            cwd=at,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    command.folder = folder  # type: ignore[attr-defined]
    return command


def test_a_file_beside_the_user_is_prepared_run_reported_and_predicted_with(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ran("prepare", "toys:Toy", "-j", "1")
    assert made.returncode == 0 and "sslbench run -r toy -m supervised,mt --labeled 20pct" in made.stderr
    small = [f"{path}={json.dumps(value)}" for path, value in TINY.items()]
    sets = [part for setting in [*small, "schedule.iterations=20"] for part in ("--set", setting)]
    trained = ran("run", "-r", "toy", "-m", "mine:ICT[mix=0.4]", "--labeled", "20%", "-j", "1", "--threads", "1", *sets)
    assert trained.returncode == 0, trained.stderr
    (config,) = (ran.folder / "results").glob("runs/toy/20pct/mine.ICT+default~*/seed-0-*/config.yaml")
    content = yaml.safe_load(config.read_text())
    assert content["job"]["method"] == "mine:ICT" and content["modules"] == {"dataset": {"toy": "toys:Toy"}}

    table = ran("report", "--markdown")
    assert table.returncode == 0 and "| ICT (" in table.stdout
    image = next((ran.folder / "data/toy/raw").glob("*.image.nii.gz"))
    predicted = ran("predict", str(config.parent), str(image), "-o", str(tmp_path / "out"))
    assert predicted.returncode == 0, predicted.stderr
    (segmented,) = (tmp_path / "out").glob("*.nii.gz")
    assert np.asarray(nib.load(segmented).dataobj).shape == (20, 22, 18)

    # Elsewhere the records still make the table; what needs the class says which module is missing.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_homes", {})
    results = ("--results-dir", str(ran.folder / "results"))
    code, out, _ = call("report", "--markdown", *results)
    assert code == 0 and "| ICT (" in out
    code, out, _ = call("status", "--json", *results)
    assert (code, json.loads(out)["runs"][0]["state"]) == (0, "finished")
    code, _, error = call("predict", str(config.parent), str(image), "-o", str(tmp_path / "more"))
    assert code == 2 and error.startswith("error: mine cannot be imported: ModuleNotFoundError: No module named 'mine'")
