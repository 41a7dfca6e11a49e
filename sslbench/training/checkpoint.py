"""Checkpoints that hold all state, in two generations, and the rules that choose which weights are tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sslbench.core.errors import SSLBenchError
from sslbench.core.files import atomic_path

if TYPE_CHECKING:
    from sslbench.config.recipe import CheckpointRule, Recipe


class Checkpoints:
    """The `checkpoints/` folder of a run: `step-<n>.pt` to resume from (the last two), `best*.pt` to test.

    Args:
        folder: made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: list[str] = []

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Write a generation and forget all but the one before it."""
        save(state, self.folder / f"step-{step:08d}.pt")
        for old in self._generations()[:-2]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest generation that can be read, or None; those that cannot are named in `unreadable`."""
        for path in reversed(self._generations()):
            try:
                return load(path)
            except Exception as error:  # whatever a damaged archive raises: the generation before it is there for that
                self.unreadable.append(f"{path.name}: {error}")
        return None

    def save_best(self, state: Mapping[str, Any], name: str) -> None:
        """Write the weights that a checkpoint rule kept under `name`."""
        save(state, self.folder / f"{name}.pt")

    def load_best(self, name: str) -> dict[str, Any]:
        """The weights kept under `name`."""
        path = self.folder / f"{name}.pt"
        try:
            return load(path)
        except Exception as error:
            raise SSLBenchError(f"{path} cannot be read: {error}", "run the job again with --force") from error

    def _generations(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a state of tensors and plain values, whole or not at all."""
    # By its path alone, torch would not say that the disk is full.
    with atomic_path(path) as aside, aside.open("wb") as stream:
        torch.save(dict(state), stream)


def load(path: Path) -> dict[str, Any]:
    """Read a state, to the CPU; nothing but tensors and plain values is unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)


@dataclass
class Selection:
    """Which weights are tested: a named rule over validation scores; test cases never take part.

    `last`: the last iteration's. `best-val`: of the highest validation score, the first where several tie. Where each
    network of a method is a candidate (`inference.networks: best_val`), each keeps its own best and the better one is
    chosen.

    Attributes:
        rule: `last` or `best-val`.
        candidates: predictors that are scored apart; None stands for the method's own rule.
        best: per candidate, its best score and the iteration of it.
        latest: per candidate, its last score.
    """

    rule: CheckpointRule
    candidates: tuple[str | None, ...]
    best: dict[str | None, tuple[float, int]] = field(default_factory=dict)
    latest: dict[str | None, float] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, keys: tuple[str, ...]) -> Selection:
        """The rule of a recipe, for a method with these predictors."""
        apart = recipe.inference.networks == "best_val" and len(keys) > 1
        return cls(recipe.checkpoint, keys if apart else (None,))

    def observe(self, iteration: int, scores: Mapping[str | None, float]) -> list[str | None]:
        """Take the scores of a validation; the candidates whose weights are to be kept now."""
        self.latest = dict(scores)
        better = [key for key, score in scores.items() if score > self.best.get(key, (-1.0, 0))[0]]
        for key in better:
            self.best[key] = (scores[key], iteration)
        return better

    def choose(self, rule: CheckpointRule | None = None) -> tuple[str | None, str | None]:
        """(predictor to test, name of the file with its weights; None: the last ones), by its own rule or another."""
        if (rule or self.rule) == "last" or not self.best:
            # Without a score (no validation, or none that is a number) the method's own rule decides.
            known = {key: score for key, score in self.latest.items() if score == score}
            own = self.candidates[0] if len(self.candidates) == 1 else None
            return max(known, key=lambda key: known[key], default=own), None
        key = max(self.best, key=lambda key: self.best[key][0])
        return key, self.file(key)

    def tested(self, checkpoints: Checkpoints) -> tuple[str | None, dict[str, Any]]:
        """The predictor that a finished training tests, and the state of its method.

        Raises:
            SSLBenchError: no checkpoint can be read.
        """
        last = checkpoints.load()
        if last is None:
            raise SSLBenchError(f"{checkpoints.folder} holds no checkpoint that can be read")
        self.restore(last["selection"])
        key, name = self.choose()
        state: dict[str, Any] = (checkpoints.load_best(name) if name else last)["method"]
        return key, state

    def best_file(self) -> str:
        """The name of the best weights of this phase, whatever the rule of the last one."""
        return self.file(max(self.best, key=lambda key: self.best[key][0]))

    @staticmethod
    def file(key: str | None) -> str:
        """The name under which a candidate's best weights are kept."""
        return "best" if key is None else f"best-{key}"

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": dict(self.best), "latest": dict(self.latest)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.best, self.latest = dict(state["best"]), dict(state["latest"])
