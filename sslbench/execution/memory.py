"""The memory of a training before it starts: one step of a method counted on torch's `meta` device, where tensors have
shapes and types, and no values: nothing is allocated.

What is counted are the tensors alive at once. The context of a GPU, workspaces of its libraries and what an allocator
loses between blocks come on top: `needed` says how much is set aside for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from sslbench.config.job import ResolvedJob
from sslbench.config.kept_jobs import is_ours
from sslbench.core import registry
from sslbench.core.kept import kept
from sslbench.core.randomness import torch_generator, unless_meta
from sslbench.core.step import Batch, Step
from sslbench.data.store import Partition, Store
from sslbench.execution.cost import MOMENTS, statistics_of
from sslbench.execution.tally import META, Tally, size_of, unfilled
from sslbench.methods.base import Group, Method, Phase
from sslbench.networks.autocast import MetaAutocast
from sslbench.training.experiment import Builder, build_method
from sslbench.training.trainer import add_plugin_terms, backward

Counted = Literal["fp32", "bf16"]

GPU_CONTEXT = 2**30  # bytes that CUDA, cuDNN and cuBLAS take before the first tensor; about
FRAGMENTATION = 0.2  # of what is counted, lost between blocks of torch's allocator: 10 to 30 %


@dataclass(frozen=True)
class StepTally:
    """The tally of one step, of the phase that takes most.

    Attributes:
        phase: its name.
        state: bytes before the step and after it: parameters, buffers, gradients, what optimisers keep.
        peak: bytes of tensors alive at once, `state` included; the training set is not.
        launches: operations that compute or copy, as ATen has them: about a kernel each on a GPU.
        flop: of convolutions and matrix products; a multiplication and an addition are two.
        moved: bytes that those operations read and write.
    """

    phase: str
    state: int
    peak: int
    launches: int
    flop: int
    moved: int


def tallied(resolved: ResolvedJob, arithmetic: Counted) -> StepTally:
    """Tally a training step of a job; the answer is kept, alike for jobs that differ in what changes no size.

    Args:
        resolved: the job; its data need not be there.
        arithmetic: `fp32`, or `bf16` as a GPU's autocast has it.

    Raises:
        Exception: whatever the method raises where it asks tensors for values.
    """
    if not is_ours(resolved):
        return tally_step(resolved, arithmetic)
    recipe = resolved.recipe
    parts = [resolved.method, resolved.plugin, resolved.loss, resolved.weightings, recipe.dataset, recipe.patch_size]
    made = [getattr(recipe, name).model_dump() for name in ("network", "batch", "criteria", "optimizer", "augment")]
    found = kept(
        "tally", [parts, made, arithmetic, torch.__version__], lambda: asdict(tally_step(resolved, arithmetic))
    )
    return StepTally(**(found or {}))


def cell_of(resolved: ResolvedJob) -> str:
    """Spell what jobs share that are tallied once."""
    recipe = resolved.recipe
    parts = [resolved.method, resolved.plugin, resolved.loss, resolved.weightings]
    made = [recipe.dataset, recipe.network.model_dump(), recipe.patch_size, recipe.batch.model_dump()]
    return json.dumps([parts, made], sort_keys=True, default=str)


def tally_step(resolved: ResolvedJob, arithmetic: Counted) -> StepTally:
    """Tally a step of each phase of a job on `meta`, and return the largest; see `tallied`."""
    recipe, statistics = resolved.recipe, statistics_of(resolved)
    channels = len(registry.component("dataset", recipe.dataset).channels)
    # The one thing that reads values inside a step; it takes a patch of labels on the host.
    reads = {name: False for name in resolved.method if name == "largest_component"}
    bare = resolved.model_copy(update={"method": {**resolved.method, **reads}})
    tally = Tally()
    found = []
    with tally, MetaAutocast():
        with unfilled():
            method = build_method(bare, Builder(bare, channels, statistics), statistics)
        for phase in method.phases():
            method.begin(phase)
            found.append(_tally_phase(tally, bare, method, phase, channels, arithmetic))
    return max(found, key=lambda step: step.peak)


def _tally_phase(
    tally: Tally, resolved: ResolvedJob, method: Method, phase: Phase, channels: int, arithmetic: Counted
) -> StepTally:
    """A step in the middle of a phase: the gradients of the one before and what optimisers keep are there."""
    groups, recipe = method.groups(phase), resolved.recipe
    learned = [parameter for group in groups.values() for parameter in group.parameters]
    for parameter in learned:
        parameter.grad = torch.empty_like(parameter)
    # Held in their place: making optimisers would load torch's compiler, for seconds.
    names = [str(group.optimizer.get("name", recipe.optimizer.name)) for group in groups.values()]
    moments = [
        torch.empty_like(parameter)
        for name, group in zip(names, groups.values(), strict=True)
        for parameter in group.parameters
        for _ in range(MOMENTS[name])
    ]
    tally.start()
    state = tally.live
    _step(resolved, method, phase, groups, channels, arithmetic)
    # A fused optimiser reads weights, gradients and moments, and writes weights and moments.
    moved = sum(2 * size_of(part) for part in (*learned, *moments)) + sum(map(size_of, learned))
    for parameter in learned:
        parameter.grad = None
    return StepTally(phase.name, state, tally.peak, tally.launches + len(groups), tally.flop, tally.moved + moved)


def _step(
    resolved: ResolvedJob,
    method: Method,
    phase: Phase,
    groups: Mapping[str, Group],
    channels: int,
    arithmetic: Counted,
) -> None:
    """A step as the trainer makes one, but for its optimisers."""
    batch = _batch(resolved, method, phase, channels)
    step = Step(
        iteration=_LATE - 1,
        iterations=_LATE,
        epoch=1,
        epochs=2,
        last_of_epoch=False,
        phase=phase.name,
        consistency_weight=torch.full((), 0.1, device=META),
        generators=unless_meta(lambda stream, device: torch_generator(0, stream)),
        logger=None,
        sweeper=lambda: iter((_batch(resolved, method, phase, channels, view="raw"),)),
    )
    method.train()
    with torch.autocast("meta", torch.bfloat16, enabled=arithmetic == "bf16"):
        terms = dict(method.training_step(batch, step))
        add_plugin_terms(terms, method, groups, batch, step)
    for group in groups.values():
        for parameter in group.parameters:
            parameter.grad = None
    backward(terms, groups)
    method.after_step(step)


_LATE = 100_000  # iterations of a phase whose last step is tallied: every ramp is up


def _batch(
    resolved: ResolvedJob, method: Method, phase: Phase, channels: int, view: Literal["raw"] | None = None
) -> Batch:
    recipe = resolved.recipe
    sizes = {stream: getattr(recipe.batch, stream) for stream in phase.streams}
    count, labeled = (1, 0) if view else (sum(sizes.values()), sizes.get("labeled", 0))
    views: Iterable[str] = (
        [view] if view else dict.fromkeys(v for stream in phase.streams for v in method.views.get(stream, ()))
    )
    with META:
        images = {name: torch.empty(count, channels, *recipe.patch_size) for name in views}
        labels = {name: torch.empty(count, *recipe.patch_size, dtype=torch.int64) for name in views}
    origin = torch.zeros(count, len(recipe.patch_size), dtype=torch.int64)
    return Batch(images, labels, labeled, torch.arange(count), origin)


def set_bytes(store: Store, parts: Partition) -> int:
    """Bytes of a training set on the device: images of all training cases, labels of the labelled ones, as stored."""
    images = sum(store.cases[case].files["image"]["bytes"] for case in (*parts.labeled, *parts.unlabeled))
    return images + sum(store.cases[case].files["label"]["bytes"] for case in parts.labeled)


def needed(counted: int, device: str) -> int:
    """Bytes to have for so many counted ones.

    Args:
        counted: of a step and the training set.
        device: `cuda` or `cpu`.
    """
    return int(counted * (1 + FRAGMENTATION)) + (GPU_CONTEXT if device == "cuda" else 0)
