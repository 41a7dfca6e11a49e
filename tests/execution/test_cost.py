"""What trainings cost before they start: operations against counts of real steps, the pace of finished runs, bills."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from sslbench.cli import listing
from sslbench.cli.terminal import costs
from sslbench.config.job import Job
from sslbench.conformance.bench import Subject
from sslbench.execution import cost
from sslbench.execution.cost import Bill, Estimator, Paces, Pricer, cores
from sslbench.execution.local import make_plan
from sslbench.methods.supervised import Supervised
from sslbench.networks import build_network
from sslbench.plugins.base import Attached
from sslbench.runs.directory import Run
from sslbench.runs.provenance import device_name
from tests.helpers.jobs import phantom_job, random_experiment, tiny_job
from tests.helpers.methods import make_step

CPU = torch.device("cpu")
CLASSES = 14


@pytest.mark.parametrize(
    ("name", "options", "patch", "giga"),
    [
        ("vnet", {"base_filters": 16}, (96, 96, 96), 212.4),
        ("vnet", {"base_filters": 32}, (64, 128, 128), 1000.6),
        ("unet3d", {}, (112, 112, 80), 415.4),
        ("unet", {}, (256, 256), 17.68),
    ],
)
def test_a_patch_through_a_network_costs_what_its_convolutions_do(
    name: str, options: Mapping[str, Any], patch: tuple[int, ...], giga: float
) -> None:
    with torch.device("meta"):
        network = build_network(name, 1, 14 if len(patch) == 3 else 4, **options)
    found = cost.count(network, 1, patch)
    assert found.trained / 1e9 == pytest.approx(giga, rel=1e-3)
    forward = found.encoder_forward + found.decoder_forward
    assert found.trained == pytest.approx(3 * forward, rel=0.01)  # but for the image, which takes no gradient


@pytest.mark.parametrize("method", ["mt", "uamt", "cps", "urpc", "ssnet", "dst", "bcp", "beta_fft"])
def test_an_estimate_is_near_the_operations_of_real_steps(method: str) -> None:
    subject = Subject(method)
    counted = 0
    for phase in subject.phases():
        with FlopCounterMode(display=False) as counter:
            subject.gradients(subject.fresh().train(), phase)
        counted += counter.get_total_flops()
    lengths = {path: 1 for path in subject.job.resolved.values if path.endswith(".pretrain_iterations")}
    changed = {**subject.job.set, **lengths, "schedule.iterations": 1}
    job = Job(**{**subject.job.model_dump(), "set": changed})
    estimate = Estimator().of(job.resolved)
    assert estimate.iterations == len(subject.phases())
    assert estimate.flop == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(("name", "anchors"), [("scdl", CLASSES), ("scdl_cdba_only", 0)])
def test_a_plugin_costs_what_its_terms_send_through_the_encoder(name: str, anchors: int) -> None:
    experiment = random_experiment(tiny_job("cps", plugin=name))
    network, batch = cast(Attached, experiment.method.get_submodule("a")), experiment.sampler.batch(0)
    with FlopCounterMode(display=False) as counter:
        torch.stack([*network.plugin.terms(network, batch, make_step()).values()]).sum().backward()
    labeled, unlabeled = batch.num_labeled, len(batch.image["weak"]) - batch.num_labeled
    passes = network.plugin.encoded(labeled, unlabeled)
    assert passes == (labeled + unlabeled, anchors * labeled)
    patch = cost.count(deepcopy(network.base).to("meta"), 1, batch.image["weak"].shape[2:])
    convolved = sum(count for kind, count in counter.get_flop_counts()["Global"].items() if "convolution" in str(kind))
    assert patch.encoded(*passes) == pytest.approx(convolved, rel=0.2)  # the last stage learns nothing


def test_a_plugin_is_a_part_of_the_estimate() -> None:
    plain, plugged = (
        Estimator().of(Job(recipe="ga-synapse", method="cps", loss="ga", plugin=plugin, labeled="20%").resolved)
        for plugin in (None, "scdl_cdba_only")
    )
    assert plain.flop is not None and plugged.flop is not None
    with torch.device("meta"):
        patch = cost.count(build_network("vnet", 1, 14, base_filters=16), 1, (96, 96, 96))
    assert plugged.flop - plain.flop == pytest.approx(17_000 * 2 * 4 * patch.encoder)  # two networks, four patches


def test_all_phases_count_and_a_scale_shortens_each() -> None:
    estimator = Estimator()
    whole, short = (
        estimator.of(Job(recipe="ga-synapse", method="bcp", labeled="20%", set={"schedule.scale": scale}).resolved)
        for scale in (1, 0.1)
    )
    assert (whole.iterations, short.iterations) == (17_000 + 2_260, 1_700 + 226)
    assert whole.flop is not None and short.flop == pytest.approx(whole.flop / 10, rel=1e-3)
    assert whole.bytes == short.bytes > 0


def test_what_no_method_says_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Supervised, "step_cost", lambda self, phase: None)
    job = Job(recipe="phantom", method="supervised", labeled="20%")
    assert Estimator().of(job.resolved).flop is None
    bill, pricer = Bill(), Pricer(tmp_path, CPU)
    pricer.add(bill, job.canonical())
    assert (bill.unknown, bill.seconds, bill.flop) == (1, 0, 0)
    assert pricer.facts(bill)["flop_per_second"] is None


def test_a_method_that_cannot_be_built_without_weights_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *arguments: Any) -> None:
        raise RuntimeError("needs numbers")

    monkeypatch.setattr(Supervised, "__init__", broken)
    assert Estimator().of(phantom_job().resolved) == cost.Estimate(360, None, 0)


def test_the_smallest_patches_can_be_counted() -> None:
    flop = Estimator().of(
        phantom_job(**{"patch_size": [16, 16, 16], "inference.stride": [16, 16, 16], **STRIDE}).resolved
    )
    assert flop.flop


STRIDE = {"inference.validation_stride": [16, 16, 16]}

# ------------------------------------------------------------------------------------------------ finished runs


def finished(job: Job, results: Path, pace: float, device: str = device_name(CPU), **status: Any) -> Run:
    """A run directory with what a pace is read from: status, records, provenance."""
    run = Run.of(job, results)
    run.directory.mkdir(parents=True)
    run.write_config(job)
    run.metrics.write_text("".join(json.dumps({"iteration": n, "it_per_s": pace}) + "\n" for n in (10, 20)))
    run.provenance.write_text(json.dumps({"device": device}))
    run.status_file.write_text(json.dumps({"state": "finished", "threads": cores(), **status}))
    return run


def test_the_pace_of_a_kind_is_that_of_its_finished_runs(tmp_path: Path) -> None:
    finished(phantom_job(seed=0), tmp_path, 4)
    finished(phantom_job(seed=1, labeled="40%"), tmp_path, 2)  # another budget, the same iterations
    finished(phantom_job(seed=2), tmp_path, 1, state="failed")
    finished(phantom_job(seed=3), tmp_path, 1, device="another machine's")
    finished(phantom_job(**{"network.base_filters": 16}), tmp_path, 1)
    measured = Paces(tmp_path, CPU)
    pace = measured.pace(phantom_job(seed=7, **{"schedule.scale": 0.5}))
    assert pace is not None and pace.iteration == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert measured.pace(phantom_job("cps")) is None


def test_recorded_seconds_count_with_validation_and_test(tmp_path: Path) -> None:
    finished(phantom_job(), tmp_path, 4, training_seconds=30, test_seconds=8)
    assert Paces(tmp_path, CPU).pace(phantom_job()) == cost.Pace(1.5, 8)
    bill = Bill()
    Pricer(tmp_path, CPU).add(bill, phantom_job(seed=1), left=0.5)
    assert bill.seconds == pytest.approx(0.5 * 360 * 1.5 + 8) and bill.measured == 1


def test_a_run_on_some_of_the_cores_leaves_room_for_others(tmp_path: Path) -> None:
    finished(phantom_job(), tmp_path, 4, threads=cores() / 2)
    pace = Paces(tmp_path, CPU).pace(phantom_job())
    assert pace is not None and pace.iteration == pytest.approx(1 / 8)


def test_other_kinds_give_the_rate_that_a_model_uses(tmp_path: Path) -> None:
    assert Pricer(tmp_path, CPU).rate == (cost.SUSTAINED["cpu"] * cores(), False)
    job = phantom_job()
    finished(job, tmp_path, 4)
    estimate = Estimator().of(job.resolved)
    assert estimate.flop is not None
    pricer, bill = Pricer(tmp_path, CPU), Bill()
    assert pricer.rate == (pytest.approx(estimate.flop / estimate.iterations * 4), True)
    pricer.add(bill, phantom_job("cps"))
    assert bill.modelled == 1 and bill.seconds == pytest.approx(bill.flop / pricer.rate[0])
    assert pricer.facts(bill)["rate_measured"]


def test_a_plan_is_priced_with_what_is_done_and_what_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "recipe: phantom\nlabeled: 20%\nseeds: [0, 1, 2]\njobs: [{{method: {}}}]\n"
    for name, methods in (("mine", "[supervised, cps]"), ("other", "cps"), ("third", "mt"), ("broken", "nosuch")):
        (tmp_path / f"{name}.yaml").write_text(text.format(methods))
    monkeypatch.setattr(listing, "grid_files", lambda: {path.stem: path for path in sorted(tmp_path.glob("*.yaml"))})
    monkeypatch.setattr(listing, "load_grid", lambda name, load=listing.load_grid: load(str(tmp_path / f"{name}.yaml")))
    half = Run.of(phantom_job("cps"), tmp_path)
    half.directory.mkdir(parents=True)
    half.write_config(phantom_job("cps"))
    half.set_status("interrupted")
    half.set_progress(iteration=90, iterations=360)
    plan = make_plan(listing.load_grid("mine").expand(), tmp_path, {})
    facts = listing.plan_cost(plan, tmp_path, "cpu", "mine")
    assert (facts["jobs"], facts["configurations"], facts["finished"]) == (6, 2, 0)
    assert facts["actions"] == {"run": 5, "continue": 1}
    assert (facts["shared"], facts["shared_jobs"]) == ({"other": 3}, 3)
    estimate = Estimator().of(phantom_job("cps").resolved)
    assert estimate.flop is not None
    assert facts["all"]["flop"] - facts["left"]["flop"] == pytest.approx(estimate.flop / 4)
    told = drawn(lambda console: costs.launch(console, facts))
    assert "2 configurations; jobs: 0 finished, 5 to start, 1 to continue" in told
    assert "other 3" in told and "an assumption" in told and "are free" in told

    rows = listing.grid_costs(tmp_path, "cpu")
    assert [(row["name"], row["jobs"], row["shared"]) for row in rows] == [
        ("mine", 6, 3),
        ("other", 3, 3),
        ("third", 3, 0),
        ("", 9, 3),
    ]
    told = drawn(lambda console: costs.grids(console, rows))
    assert "all, each job once" in told and all(len(line) <= 100 for line in told.splitlines())


def drawn(draw: Any) -> str:
    console = Console(width=100, record=True)
    with console.capture() as capture:
        draw(console)
    return capture.get()


@pytest.mark.parametrize(
    ("number", "text"),
    [(2.94e18, "2.94 EFLOP"), (969e15, "969 PFLOP"), (1.64e13, "16.4 TFLOP"), (5e9, "5 GFLOP"), (0, "0 GFLOP")],
)
def test_operations_are_told_with_three_digits(number: float, text: str) -> None:
    assert costs.operations(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (2100, "35 min"), (52_560, "14.6 h"), (788_400, "219 h")])
def test_times_are_told_for_planning(seconds: float, text: str) -> None:
    assert costs.hours(seconds) == text
