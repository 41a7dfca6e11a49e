"""SS-Net: smooth against adversarial noise, and features near the prototypes of their class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.consistency import vat_loss
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.prototypes import ClassSelectors, PrototypeMemory, Rank, prototype_loss
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits
from sslbench.methods.shared.dice_supervision import DiceOptions, dice_terms, nothing_but_ce
from sslbench.networks.base import evaluating

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class SSNetOptions(DiceOptions):
    """Options of `ssnet`."""

    xi: float = Field(default=10.0, gt=0, description="ξ, length of the step that probes a direction (SS-Net)")
    eps: float = Field(default=6.0, gt=0, description="ε, length of the adversarial noise (SS-Net on ACDC; 3-D: 10)")
    power_iterations: int = Field(default=1, ge=1, description="that find the adversarial direction (SS-Net)")
    distance: Literal["dice", "pooled_dice", "linear_dice"] = Field(
        default="dice",
        description="of noisy from clean probabilities: squared Dice, the mean over classes (SS-Net on ACDC), one "
        "plain Dice over all classes (LA), or plain Dice, the mean over classes (DHC port)",
    )
    contrast_weight: float = Field(default=0.1, ge=0, description="of the contrastive terms beside VAT (SS-Net)")
    memory: int = Field(default=32, ge=2, description="prototypes of a class (SS-Net)")
    ssnet_rank: Rank = Field(
        default="lowest",
        description="scores of the candidates that become prototypes: lowest as released, highest as documented there",
    )
    ssnet_memory_weights: bool = Field(
        default=False,
        description="weigh the prototypes by their selectors too, as intended; as released their weights cancel to 1",
    )


class Heads(nn.Module):
    """What SS-Net puts on the embedding: projection, prediction, and two selectors per class.

    Args:
        channels: f, of the embedding; vectors have 2f.
        num_classes: C.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        width = 2 * channels
        self.projection, self.prediction = _mlp(channels, width), _mlp(width, width)
        self.selectors = ClassSelectors(num_classes, width)
        self.memory_selectors = ClassSelectors(num_classes, width)


def _mlp(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, width)
    )


@register("method", "ssnet", aliases=("ss-net",))
class SSNet(Method):
    """Dice of labelled patches + λ·[VAT + 0.1·(contrast of labelled + of unlabelled patches)] (SS-Net; Wu et al.,
    MICCAI 2022).

    VAT draws the prediction of all patches to that without the adversarial noise of length ε; the noise-free pass goes
    through the network once more, in training mode, and counts in the batch statistics, which the noisy ones do not.

    The embedding is the finest map of the decoder; two small networks, projection and prediction, read its voxels.
    Labelled foreground voxels that are predicted right are candidates: their projections, in evaluation mode and
    without gradient, overwrite the bank of their class, at most 32 of them, chosen by the score of the class's
    selector in training mode. Then every voxel's prediction is drawn to the bank of its class, the true one or the
    network's own, by their cosine, weighted by the selector. Background has no prototypes. A loss that needs a
    reference holds the network against itself. Inference: the network.

    Cost: three forward and backward passes over all patches and one forward, and the heads. Beyond what networks keep,
    memory grows with the voxels alone: the heads' maps, about a dozen of 2f fp32 channels, are made anew for the
    backward pass, of the labelled half and of the unlabelled one apart (12 slices of 256², f = 16: 1.2 GB, two patches
    of 112 × 112 × 80: 3 GB), and no pair of voxel and prototype is formed (see `prototype_loss`).

    Deviations:
    - on LA the code takes the Dice of the foreground alone; here it is that of `criteria`, background included
    """

    version = 2  # candidates are scored in training mode
    title = "SS-Net"
    Options: ClassVar[type[BaseModel]] = SSNetOptions
    defaults = {"criteria.smooth": 1e-10}
    term_kinds = ("label",)
    check_exemptions = {
        "supervised_at_zero": "its supervised term is the Dice, whatever the recipe's criteria weigh",
        "every_parameter_moves": "the selectors of the memory take no gradient, as released",
    }
    options: SSNetOptions

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        return nothing_but_ce(job, cls.term_kinds)

    def __init__(self, options: SSNetOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net, C = build("net"), statistics.num_classes
        channels = cast(nn.Conv2d | nn.Conv3d, self.net.decoder.head).in_channels
        self.heads = build.module("heads", lambda: Heads(channels, C))
        self.memory = PrototypeMemory(C, 2 * channels, options.memory)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        embedding = self.net.decode(self.net.encode(image))[-1]
        logits = self.net.head(embedding)
        self.loss.observe(step, "net", logits, labels)
        supervised = torch.stack(dice_terms(self.loss, logits, labels, L, self.options.ce)).sum()
        predicted = classes_of(logits.detach())
        self._remember(embedding[:L].detach(), labels[:L], predicted[:L])
        contrast = self._contrast(embedding[:L], labels[:L]) + self._contrast(embedding[L:], predicted[L:])
        vat = self._vat(image, step)
        loss = supervised + step.consistency_weight * (vat + self.options.contrast_weight * contrast)
        return {"loss": loss, "supervised": supervised, "vat": vat, "contrast": contrast}

    def _vat(self, image: Tensor, step: Step) -> Tensor:
        options = self.options
        noise = torch.rand(image.shape, generator=step.generator("vat-noise", image.device), device=image.device) - 0.5
        return vat_loss(
            self.net, image, options.xi, options.eps, options.power_iterations, noise, distance=options.distance
        )

    @torch.no_grad()
    def _remember(self, embedding: Tensor, labels: Tensor, predicted: Tensor) -> None:
        """Take the foreground that is predicted right into the bank."""
        candidates = torch.where((predicted == labels) & (labels > 0), labels, -1).flatten()
        with evaluating(self.heads.projection):
            projected = self.heads.projection(_rows(embedding))
        scores = self.heads.selectors(projected, candidates)
        self.memory.update(projected, candidates, scores, self.options.ssnet_rank)

    def _contrast(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """The distance of voxels from the prototypes of their classes (B, *S); what the heads make is not kept."""

        def distance(embedding: Tensor) -> Tensor:
            heads = self.heads
            features = heads.prediction(heads.projection(_rows(embedding)))
            weights = heads.memory_selectors if self.options.ssnet_memory_weights else None
            return prototype_loss(features, labels.flatten(), self.memory.vectors, heads.selectors, weights)

        # Made again for the backward pass, which must not update the statistics again.
        found: Tensor = checkpoint(
            distance,
            embedding,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _kept_buffers(self.heads)),
        )
        return found

    def step_cost(self, phase: Phase) -> StepCost:
        noisy = 1 + self.options.power_iterations
        return StepCost(labeled=1 + noisy, unlabeled=1 + noisy, labeled_forward=1, unlabeled_forward=1)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)


def _rows(embedding: Tensor) -> Tensor:
    """The voxels (B·voxels, f) of a map (B, f, *S)."""
    return embedding.flatten(2).transpose(1, 2).flatten(0, 1)


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    """Whatever runs inside, the module's buffers are as before behind it."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)
