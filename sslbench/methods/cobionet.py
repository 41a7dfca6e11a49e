"""Co-BioNet: two networks that learn from each other where a critic takes the other's prediction for a label."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import cross_entropy, full_precision
from sslbench.methods.base import Build, Group, Phase
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions, Prediction


class CoBioNetOptions(CoTrainingOptions):
    """Options of `cobionet`."""

    trust: float = Field(
        default=0.2, ge=0, lt=1, description="what the critic must give a voxel of the peer that is learned from (code)"
    )
    adversarial_weight: float = Field(default=0.01, ge=0, description="of the term that the critics judge (Co-BioNet)")
    critic_lr: float = Field(default=1e-4, gt=0, description="of AdamW on the critics, at the start (Co-BioNet)")
    critic_weight_decay: float = Field(
        default=0.01, ge=0, description="of AdamW on the critics (unpublished: that of PyTorch)"
    )
    released_cobionet: bool = Field(
        default=False,
        description="the public code's slips: the critics never learn, the difference has no gradient, and the trusted "
        "voxels' share scales the mean over all voxels in the place of a mean over them",
    )


class Critic(nn.Module):
    """Tells labels from predictions, voxel by voxel: convolutions of side 1, C → 16 → 32 → 64 → 1 without bias, each
    with batch norm and LeakyReLU(0.2), the last one too. 2866 parameters for C = 1.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, 16, 32, 64, 1)):
            layers += [nn.Conv1d(before, after, 1, bias=False), nn.BatchNorm1d(after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, probabilities: Tensor) -> Tensor:
        """The log-odds (B, voxels), fp32, that each voxel of probabilities (B, C, *S) is one of a label."""
        scores: Tensor = self.layers(probabilities.flatten(2)).squeeze(1)
        return full_precision(scores)


@register("method", "cobionet", aliases=("co-bionet",))
class CoBioNet(CoTraining):
    """Two networks and two critics (Co-BioNet; Peiris et al., Nature Machine Intelligence 2023).

    Σ_n supervised(n) + λ Σ_n [CE(p_n, ⟨p_m⟩) over the unlabelled voxels that critic m takes for a label's, σ > 0.2
    + CE(p_n, ⟨p_m⟩) over all of them + 0.01·BCE(critic_n(p_n), 1) over all patches], m the other network and ⟨·⟩
    without gradient. λ goes up to 1. The critics learn with an optimiser of their own, AdamW along a cosine:
    Σ_n ½ [BCE(critic_n(labels), 1) + BCE(critic_n(⟨p_n⟩), 0)], p_n over all patches; the adversarial term's gradient
    goes through them to the networks and leaves them alone. Labelled and unlabelled patches go apart through the
    networks, each with their own batch statistics. Inference: the mean of the logits.

    The masked cross-entropy with its soft target is the loss's term for pseudo-labels (GA hardens the target and counts
    inside the mask); the one over all voxels is a soft consistency term.

    Cost: two forward and backward passes over all patches. A critic, 3 000 parameters applied to every voxel, makes
    three passes with gradient and one without.

    Deviations:
    - The paper and code are binary, with sigmoids; softmaxes, critics of C channels and soft cross-entropies are the
      plain extension (none was published).
    - As the critic ends in batch norm and LeakyReLU, σ > 0.2 is 6.9 standard deviations below its mean before it has
      learned: the mask lets all voxels through until the critic's last scale has grown.
    - In the code, only weight decay moves the critics, the difference is a number and the mask a factor. Here all three
      are as the paper means them; `released_cobionet` brings the code's slips back.
    - The code makes a third pass, over all patches, for critics and adversarial term; here these see the two passes.
    - The critics' cosine runs once over the training; the code steps one of as many iterations as there are epochs.
    - The code tests where both networks agree and keeps the largest component (the protocol `la-cobionet`).
    """

    title = "Co-BioNet"
    Options: ClassVar[type[BaseModel]] = CoBioNetOptions
    defaults = {"ramp.weight": 1.0}
    term_kinds = ("label", "pseudo", "consistency")
    check_exemptions = {
        "blind_at_zero": "the critics always see predictions of unlabelled patches",
        "supervised_at_zero": "the critics always learn",
    }
    options: CoBioNetOptions

    def __init__(self, options: CoBioNetOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.critics = nn.ModuleDict(
            {key: build.module(f"critic/{key}", lambda: Critic(statistics.num_classes)) for key in self.predictors}
        )
        if options.released_cobionet:
            self.critics.requires_grad_(False)
            self.check_exemptions = {
                **self.check_exemptions,
                "every_parameter_moves": "the released code's critics never learn",
            }

    def groups(self, phase: Phase) -> dict[str, Group]:
        networks = [p for key in self.predictors for p in self.get_submodule(key).parameters() if p.requires_grad]
        if self.options.released_cobionet:
            return {"networks": Group(networks)}
        optimizer = {
            "name": "adamw",
            "lr": self.options.critic_lr,
            "weight_decay": self.options.critic_weight_decay,
        }
        return {
            "networks": Group(networks),
            "critics": Group([*self.critics.parameters()], optimizer, {"lr": "cosine"}),
        }

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        apart = zip(self.pair(image[:L]), self.pair(image[L:]), strict=True)
        a, b = (Prediction(known.key, torch.cat([known.logits, unknown.logits])) for known, unknown in apart)
        self.observe(step, (a, b), labels)
        supervised = self.supervised((a, b), labels, L).sum()
        probabilities = {key: full_precision(logits).softmax(1) for key, logits in (a, b)}
        taught = self._peer_term(a, b, probabilities["b"][L:].detach(), step)
        taught = taught + self._peer_term(b, a, probabilities["a"][L:].detach(), step)
        adversarial = torch.stack([F.softplus(-self.critics[key](p)).mean() for key, p in probabilities.items()]).sum()
        loss = supervised + step.consistency_weight * (taught + self.options.adversarial_weight * adversarial)
        terms = {"supervised": supervised, "taught": taught, "adversarial": adversarial}
        if self.options.released_cobionet:
            return {"loss": loss, **terms}
        fake = {key: p.detach() for key, p in probabilities.items()}
        return {"loss/networks": loss, "loss/critics": self._discrimination(fake, labels[:L]), **terms}

    def _peer_term(self, learner: Prediction, peer: Prediction, target: Tensor, step: Step) -> Tensor:
        """What a network learns from the peer's probabilities `target` (U, C, *S) of the unlabelled patches."""
        unlabeled = slice(-len(target), None)
        logits = learner.logits[unlabeled]
        with torch.no_grad():
            trusted = (self.critics[peer.key](target).sigmoid() > self.options.trust).view_as(target[:, 0])
        share = trusted.float().mean()
        step.log(f"trusted/{peer.key}", share)
        released = self.options.released_cobionet
        masked = self.loss.ce(
            logits,
            target,
            source="pseudo",
            key=learner.key,
            reference=self.reference(peer.key, peer.logits[unlabeled]),
            mask=None if released else trusted,
        )
        difference = self.loss.consistency(
            logits, lambda: cross_entropy(logits, target), key=learner.key, reference=(peer.key, target)
        )
        return share * masked + difference.detach() if released else masked + difference

    def _discrimination(self, fake: dict[str, Tensor], labels: Tensor) -> Tensor:
        """The critics' loss: of predictions (B, C, *S) by key, and labels (B, *S)."""
        real = F.one_hot(labels, self.statistics.num_classes).movedim(-1, 1).float()
        terms = [
            0.5 * (F.softplus(-self.critics[key](real)).mean() + F.softplus(self.critics[key](p)).mean())
            for key, p in fake.items()
        ]
        return torch.stack(terms).sum()
