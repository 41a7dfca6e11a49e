"""The training loop: exact resume, phases, groups, faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.conformance.bench import MemoryRecorder
from sslbench.core.errors import SSLBenchError, TrainingError, UsageError
from sslbench.core.step import Batch, Step
from sslbench.losses.base import Loss, Term
from sslbench.methods.base import Group, Method, Phase
from sslbench.training.checkpoint import Checkpoints, Selection, load, save
from sslbench.training.trainer import Interrupted, Trainer
from sslbench.training.validation import Validation
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d


def train(
    job: Job,
    folder: Path,
    stop_after: int | None = None,
    records: MemoryRecorder | None = None,
    save_every: float = math.inf,
) -> Trainer:
    """Train until the end, or until `stop_after` more iterations began."""
    asked = iter(range(10**6))
    should_stop = (lambda: False) if stop_after is None else (lambda: next(asked) >= stop_after)
    trainer = Trainer(random_experiment(job), Checkpoints(folder), records or MemoryRecorder(), should_stop, save_every)
    trainer.fit()
    return trainer


class Killed(BaseException):
    """The end of a process."""


def killed(job: Job, folder: Path, saved: int, dies: int, records: MemoryRecorder) -> Selection:
    """Train with a checkpoint after `saved` iterations, until the process dies after `dies`; what it held the best."""

    def ask() -> bool:
        done = next(asked)
        trainer.save_every = 0 if done == saved - 1 else math.inf
        if done == dies:
            trainer.checkpoints.wait()
            raise Killed
        return False

    asked = iter(range(10**6))
    trainer = Trainer(random_experiment(job), Checkpoints(folder), records, ask)
    with pytest.raises(Killed):
        trainer.fit()
    return trainer.selection


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return trainer.method.state_dict()


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])), name


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5])
@pytest.mark.parametrize(
    "job",
    [
        tiny_job("cps", "ga"),
        tiny_job_2d("cps"),
        tiny_job_2d("supervised", "ga"),
        tiny_job("cps", set={"precision": "auto"}),
    ],
    ids=["cps-ga-3d", "cps-2d", "supervised-ga-2d", "cps-3d-auto-precision"],
)
def test_a_stopped_and_resumed_job_ends_like_one_never_stopped(job: Job, stop_after: int, tmp_path: Path) -> None:
    through, records = MemoryRecorder(), MemoryRecorder()
    whole = train(job, tmp_path / "whole", records=through)
    with pytest.raises(Interrupted):
        train(job, tmp_path / "parts", stop_after, records)
    resumed = train(job, tmp_path / "parts", records=records)
    assert_same(weights(resumed), weights(whole))
    assert resumed.selection == whole.selection
    assert [entry for entry in records.entries if "validation" in entry] == [
        entry for entry in through.entries if "validation" in entry
    ]
    assert any("resumed" in message for message in records.messages)


@pytest.mark.parametrize(("saved", "dies"), [(2, 3), (4, 5)])
def test_a_kill_between_a_better_validation_and_the_next_checkpoint_changes_nothing(
    saved: int, dies: int, tmp_path: Path
) -> None:
    job = tiny_job_2d("cps", set={"schedule.validate_every": 1})
    through, records = MemoryRecorder(), MemoryRecorder()
    whole = train(job, tmp_path / "whole", records=through)
    lost = killed(job, tmp_path / "parts", saved, dies, records)
    assert any(iteration > saved for _, iteration in lost.best.values()), "no better validation was lost"
    resumed = train(job, tmp_path / "parts", records=records)
    assert f"resumed after iteration {saved} of 6" in records.messages
    assert records.entries == through.entries
    assert (resumed.selection, resumed.chosen) == (whole.selection, whole.chosen)
    assert_same(weights(resumed), weights(whole))
    for name in whole.selection.files():
        ours, theirs = (Checkpoints(tmp_path / part).load_best(name) for part in ("parts", "whole"))
        assert ours["iteration"] == theirs["iteration"]
        assert_same(ours["method"], theirs["method"])


def test_best_weights_behind_the_checkpoint_are_never_taken_for_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that goes on rounds otherwise, and what was better there is not here."""
    job = tiny_job_2d("supervised", set={"schedule.validate_every": 1})
    scores = iter([0.5, 0.2, 0.7, *[0.1] * 5])
    monkeypatch.setattr(Validation, "scores", lambda self, key: torch.full((3,), next(scores)))
    lost = killed(job, tmp_path, 2, 3, MemoryRecorder())
    assert lost.best[None] == (pytest.approx(0.7), 3)
    resumed = train(job, tmp_path)
    assert resumed.selection.best[None] == (pytest.approx(0.5), 1)
    with pytest.raises(Interrupted):
        train(job, tmp_path / "first", 1)
    first = Checkpoints(tmp_path / "first").load()
    assert first is not None
    assert_same(weights(resumed), first["method"])


def test_resume_falls_back_a_generation_when_the_newest_is_damaged(tmp_path: Path) -> None:
    job = tiny_job_2d("supervised")
    whole = train(job, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(job, tmp_path / "parts", 3)
    with pytest.raises(Interrupted):
        train(job, tmp_path / "parts", 1)  # after 4 iterations
    newest = sorted((tmp_path / "parts").glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    records = MemoryRecorder()
    resumed = train(job, tmp_path / "parts", records=records)
    assert_same(weights(resumed), weights(whole))
    assert newest.name in records.messages[0]


def test_the_same_job_gives_the_same_numbers_and_another_seed_others(tmp_path: Path) -> None:
    first, again = train(tiny_job_2d(), tmp_path / "a"), train(tiny_job_2d(), tmp_path / "b")
    other = train(tiny_job_2d(seed=1), tmp_path / "c")
    assert_same(weights(first), weights(again))
    assert not torch.equal(
        weights(first)["net.encoder.blocks.0.0.weight"], weights(other)["net.encoder.blocks.0.0.weight"]
    )


def test_a_finished_job_trained_again_keeps_its_weights(tmp_path: Path) -> None:
    first = train(tiny_job_2d(), tmp_path)
    assert_same(weights(train(tiny_job_2d(), tmp_path)), weights(first))


def test_best_val_tests_the_best_and_last_the_last(tmp_path: Path) -> None:
    best = train(tiny_job_2d("cps"), tmp_path / "best")
    assert best.chosen in ("a", "b")
    key = best.chosen
    score, iteration = best.selection.best[key]
    assert score == max(value for value, _ in best.selection.best.values())
    kept = Checkpoints(tmp_path / "best").load_best(best.selection.file(key))
    assert kept.keys() == {"method", "iteration"}
    assert kept["iteration"] == iteration
    assert_same(weights(best), kept["method"])
    last = train(tiny_job_2d("cps", set={"checkpoint": "last"}), tmp_path / "last")
    newest = Checkpoints(tmp_path / "last").load()
    assert newest is not None
    assert_same(weights(last), newest["method"])


def test_the_weights_of_either_rule_can_be_taken_in_any_order(tmp_path: Path) -> None:
    trainer = train(tiny_job_2d("cps"), tmp_path)
    newest = Checkpoints(tmp_path).load()
    assert newest is not None
    best = trainer.selection.file(trainer.chosen)  # which is made to differ from the last
    bias = next(name for name in newest["method"] if name.startswith("a.") and name.endswith("head.bias"))
    save({"method": {**newest["method"], bias: torch.full((4,), 7.0)}}, tmp_path / f"{best}.pt")
    assert trainer.take("last") in ("a", "b")
    assert_same(weights(trainer), newest["method"])
    trainer.take("best-val")
    assert weights(trainer)[bias].tolist() == [7.0] * 4
    trainer.take("last")
    assert_same(weights(trainer), newest["method"])
    # Not the generation before it in its place.
    sorted(tmp_path.glob("step-*.pt"))[-1].write_bytes(b"")
    trainer.take("best-val")
    with pytest.raises(SSLBenchError, match="the last iteration cannot be read"):
        trainer.take("last")


def test_best_val_without_validation_cases_is_refused(tmp_path: Path) -> None:
    experiment = random_experiment(tiny_job())
    object.__setattr__(experiment, "validation", [])
    with pytest.raises(UsageError, match="no validation case"):
        Trainer(experiment, Checkpoints(tmp_path), MemoryRecorder())


def explodes(throw_away: Callable[..., Any], at: Callable[[int], bool]) -> None:
    """Register a loss that is infinite in some steps, counted from 1."""

    @throw_away("loss", "explodes")
    class Explodes(Loss):
        def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
            self.bad = at(step.iteration + 1)

        def ce_term(self, term: Term) -> Tensor:
            return super().ce_term(term) * (torch.inf if self.bad else 1.0)


def test_a_step_without_a_finite_loss_is_left_out_and_counted(tmp_path: Path, throw_away: Callable[..., Any]) -> None:
    explodes(throw_away, lambda iteration: iteration in (3, 4))
    records = MemoryRecorder()
    job = tiny_job_2d("mt", "explodes", set={"ramp.weight": 0, "schedule.validate_every": 0, "checkpoint": "last"})
    whole = train(job, tmp_path / "whole", records=records)
    assert whole.skipped == 2 and records.entries[-1]["skipped"] == 2
    assert all(torch.isfinite(value).all() for value in whole.method.state_dict().values())
    assert [message.split(" (")[0] for message in records.messages] == [
        "the loss is not finite at iteration 3",
        "the loss is not finite at iteration 4",
    ]
    assert "this step is left out, 2 so far" in records.messages[1]
    # Neither weights nor teacher move in such a step; what was done before it stays.
    for stops in (2, 4):
        with pytest.raises(Interrupted):
            train(job, tmp_path / f"{stops}", stops)
    two, four = (Checkpoints(tmp_path / f"{stops}").load() for stops in (2, 4))
    assert two is not None and four is not None and four["skipped"] == (2, 2)
    learnt = [name for name, _ in whole.method.named_parameters()]
    assert any(name.startswith("teacher") for name in learnt)
    assert_same({name: two["method"][name] for name in learnt}, {name: four["method"][name] for name in learnt})
    assert_same(weights(train(job, tmp_path / "4")), weights(whole))


@pytest.mark.parametrize(("iterations", "last"), [(30, 24), (6, 6)])
def test_twenty_steps_without_a_finite_loss_in_a_row_stop_the_job(
    tmp_path: Path, throw_away: Callable[..., Any], iterations: int, last: int
) -> None:
    explodes(throw_away, lambda iteration: iterations == 6 or iteration > 4)
    job = tiny_job_2d("supervised", "explodes", set={"schedule.iterations": iterations})
    with pytest.raises(TrainingError, match=rf"not finite at iteration {last} .*loss inf.*, as in the \d+ before"):
        train(job, tmp_path, save_every=0)
    state = Checkpoints(tmp_path).load()
    assert state is not None
    assert all(torch.isfinite(value).all() for value in state["method"].values())


def test_a_state_that_holds_nan_stops_the_job_at_once(tmp_path: Path) -> None:
    job = tiny_job_2d("supervised", set={"optimizer.lr": 1e30})
    with pytest.raises(TrainingError, match=r"not finite at iteration 2 .* holds NaN since"):
        train(job, tmp_path)


def test_training_is_handed_no_label_of_an_unlabeled_case_and_no_test_case() -> None:
    experiment = random_experiment(tiny_job("cps"))
    batch = experiment.sampler.batch(0)
    assert (batch.label["weak"][batch.num_labeled :] == -1).all()
    assert (batch.label["weak"][: batch.num_labeled] >= 0).all()
    for whole in experiment.sampler.sweep():
        if int(whole.index) >= experiment.sampler.count["labeled"]:
            assert (whole.label["raw"] == -1).all()


class TwoGroups(Method):
    """A generator and a critic-like pair whose losses would leak into each other if gradients were not kept apart."""

    title = "Two groups"
    predictors = ("net",)

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.net = parts[1]("net")
        self.critic = nn.Conv3d(14, 1, 1)

    def groups(self, phase: Phase) -> dict[str, Group]:
        return {
            "networks": Group(list(self.net.parameters())),
            "critic": Group(list(self.critic.parameters()), optimizer={"name": "sgd", "lr": 0.5, "weight_decay": 0.0}),
        }

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        probabilities = self.net(batch.image["weak"]).softmax(1)
        return {
            "loss/networks": self.critic(probabilities).mean(),
            "loss/critic": -self.critic(probabilities.detach()).mean(),
        }

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return self.net(x).softmax(1)


def test_each_group_moves_by_its_own_loss_and_its_own_rate(tmp_path: Path, throw_away: Callable[..., Any]) -> None:
    throw_away("method", "two_groups")(TwoGroups)
    experiment = random_experiment(tiny_job("two_groups", set={"schedule.lr": "constant"}))
    before = experiment.method.critic.bias.detach().clone()
    records = MemoryRecorder()
    Trainer(experiment, Checkpoints(tmp_path), records).fit()
    kept = Checkpoints(tmp_path).load()
    assert kept is not None
    # d(-mean)/d(bias) is -1: after 6 steps of momentum SGD at 0.5 the bias has risen by what that sums up to.
    velocity, moved = 0.0, 0.0
    for _ in range(6):
        velocity = 0.9 * velocity + 1
        moved += 0.5 * velocity
    assert torch.allclose(kept["method"]["critic.bias"] - before, torch.tensor([moved]), atol=1e-4)
    assert {"lr/networks", "lr/critic"} <= records.entries[-2].keys() | records.entries[-1].keys()


class TwoPhases(Method):
    """Counts what the trainer does with phases."""

    title = "Two phases"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.net = parts[1]("net")
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))

    def phases(self) -> list[Phase]:
        return [Phase("first", iterations=4, streams=("labeled",)), Phase("second", hand_on="last", optimizer="keep")]

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        second = step.phase == "second"
        assert step.iterations == (6 if second else 4)
        assert len(batch.image["weak"]) == (4 if second else 2)
        self.seen[int(second)] += 1
        labels = batch.label["weak"][:2]
        return {"loss": self.loss.supervised(self.net(batch.image["weak"])[:2], labels, key="net")}

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return self.net(x).softmax(1)


@pytest.mark.parametrize("stop_after", [2, 4, 5, 8])
def test_phases_run_in_order_hand_on_their_best_and_resume(
    stop_after: int, tmp_path: Path, throw_away: Callable[..., Any]
) -> None:
    throw_away("method", "two_phases")(TwoPhases)
    job = tiny_job("two_phases", set={"schedule.validate_every": 2, "checkpoint": "last"})
    whole = train(job, tmp_path / "whole")
    seen = weights(whole)["seen"].tolist()
    assert seen[0] in (2, 4)  # the best of the first phase was handed on
    assert seen[1] == 6
    # Killed in the second phase, whose best is not that of the first.
    lost = killed(job, tmp_path / "killed", 100, 8, MemoryRecorder())
    assert lost.best and min(iteration for _, iteration in lost.best.values()) > 4
    # The optimiser is handed on with the first phase's best; with the second's there is nobody to take it.
    (handed,) = (tmp_path / "killed").glob("best*.pt")
    assert "optimizers" in load(handed)
    resumed = train(job, tmp_path / "killed")
    assert_same(weights(resumed), weights(whole))
    assert resumed.selection == whole.selection
    assert handed.exists()  # the generation before the last, at the end of the first phase, needs it
    (last,) = resumed.selection.files()
    assert "optimizers" not in Checkpoints(tmp_path / "killed").load_best(last)
    with pytest.raises(Interrupted):
        train(job, tmp_path / "parts", stop_after)
    assert_same(weights(train(job, tmp_path / "parts")), weights(whole))


class Heirs(Method):
    """One network's shift is trained before; its optimiser state goes on twice, where only momentum moves."""

    title = "Heirs"
    predictors = ("a", "b")

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.a, self.b = nn.Conv3d(1, 14, 1), nn.Conv3d(1, 14, 1)
        for network in (self.a, self.b):
            nn.init.zeros_(network.bias)

    def phases(self) -> list[Phase]:
        return [
            Phase("before", iterations=4, streams=("labeled",), hand_on="last", predictors=("a",)),
            Phase("after", iterations=3, optimizer="keep"),
        ]

    def begin(self, phase: Phase) -> None:
        if phase.name == "after":
            self.b.load_state_dict(self.a.state_dict())

    def groups(self, phase: Phase) -> dict[str, Group]:
        sgd = {"name": "sgd", "lr": 0.5, "weight_decay": 0.0, "momentum": 0.9}
        a = Group([self.a.bias], sgd, {"lr": "constant"})
        b = Group([self.b.bias], sgd, {"lr": "constant"}, heir_of="a")
        return {"a": a} if phase.name == "before" else {"a": a, "b": b}

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        loss = self.a.bias.sum() if step.phase == "before" else 0 * (self.a.bias.sum() + self.b.bias.sum())
        return {"loss": loss}

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return self.get_submodule(key or "a")(x).softmax(1)


@pytest.mark.parametrize("stop_after", [None, 5])
def test_two_groups_begin_with_the_optimiser_state_of_one(
    stop_after: int | None, tmp_path: Path, throw_away: Callable[..., Any]
) -> None:
    throw_away("method", "heirs")(Heirs)
    settings = {"inference.networks": "best_val", "schedule.validate_every": 1, "checkpoint": "last"}
    job, records = tiny_job("heirs", set=settings), MemoryRecorder()
    if stop_after:
        with pytest.raises(Interrupted):
            train(job, tmp_path, stop_after, records)
    method = train(job, tmp_path, records=records).method
    # Four gradients of 1, then none: v ← 0.9·v + g, and every step moves by -0.5·v, in each heir by itself.
    velocity, moved = 0.0, 0.0
    for gradient in (1, 1, 1, 1, 0, 0, 0):
        velocity = 0.9 * velocity + gradient
        moved -= 0.5 * velocity
    for network in (method.a, method.b):
        assert torch.allclose(network.bias.detach(), torch.full((14,), moved))
    scored = [set(entry["validation"]) for entry in records.entries if "validation" in entry]
    a, b = {"dsc/a", "dsc/a/class"}, {"dsc/b", "dsc/b/class"}
    assert scored == [a] * 4 + [a | b] * 3
