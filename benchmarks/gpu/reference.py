"""A plain training loop, as research code has it: fp32 (TF32 on a GPU, as torch does by itself), contiguous tensors, a
loss term per class in a Python loop, and a loss that is read in every step. What `run.py` holds steps against."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["supervised", "mt", "cps"]


class ReferenceLoop:
    """Steps of supervised training, of a mean teacher or of cross pseudo supervision.

    Args:
        kind: which.
        loss: `default` (Dice and cross-entropy) or `ga` (GA, ECCV 2024, equations 8 and 11).
        networks: one, or two of `cps`, with logits (B, C, *S); contiguous ones on the device.
        classes: C.
        labeled: how many of a batch's patches are labelled; they come first.
    """

    def __init__(self, kind: Kind, loss: str, networks: Sequence[nn.Module], classes: int, labeled: int) -> None:
        self.kind, self.ga, self.classes, self.labeled = kind, loss == "ga", classes, labeled
        self.networks = [network.train() for network in networks]
        self.teacher = copy.deepcopy(networks[0]).requires_grad_(False) if kind == "mt" else None
        self.optimizers = [
            torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4) for network in networks
        ]

    def step(self, image: Tensor, label: Tensor) -> float:
        """One step; its loss.

        Args:
            image: (B, channels, *S).
            label: (labelled, *S) int64.
        """
        loss = {"supervised": self._supervised, "mt": self._mean_teacher, "cps": self._cross}[self.kind](image, label)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        if self.teacher is not None:
            for old, new in zip(self.teacher.parameters(), self.networks[0].parameters(), strict=True):
                old.data.mul_(0.99).add_(new.data, alpha=0.01)
        return loss.item()

    def _supervised(self, image: Tensor, label: Tensor) -> Tensor:
        logits = self.networks[0](image[: self.labeled])
        return self._ce(logits, label, 10) + self._dice(logits, label)

    def _mean_teacher(self, image: Tensor, label: Tensor) -> Tensor:
        logits = self.networks[0](image)
        known = logits[: self.labeled]
        with torch.no_grad():
            noise = torch.clamp(torch.randn_like(image[self.labeled :]) * 0.1, -0.2, 0.2)
            soft = torch.softmax(self.teacher(image[self.labeled :] + noise), 1)  # type: ignore[misc]
        consistency = ((torch.softmax(logits[self.labeled :], 1) - soft) ** 2).mean()
        return self._ce(known, label, 10) + self._dice(known, label) + 0.1 * consistency

    def _cross(self, image: Tensor, label: Tensor) -> Tensor:
        a, b = (network(image) for network in self.networks)
        total = torch.zeros((), device=image.device)
        for own, other in ((a, b), (b, a)):
            total = total + self._ce(own[: self.labeled], label, 10) + self._dice(own[: self.labeled], label)
            total = total + 0.1 * self._ce(own, other.detach().argmax(1), 100)
        return total

    def _ce(self, logits: Tensor, label: Tensor, percent: int) -> Tensor:
        if not self.ga:
            return F.cross_entropy(logits, label)
        nll, label = F.cross_entropy(logits, label, reduction="none").flatten(), label.flatten()
        number = max(1, nll.numel() * percent // 100)
        hardest = torch.topk(nll, number).indices
        nll, label = nll[hardest], label[hardest]
        total = torch.zeros((), device=nll.device)
        for c in range(self.classes):
            here = label == c
            total = total + nll[here].sum() / (number**0.5 * (here.sum() + 1e-10) ** 0.5 + 1e-10)
        return total

    def _dice(self, logits: Tensor, label: Tensor) -> Tensor:
        p = torch.softmax(logits, 1)
        one_hot = torch.stack([label == c for c in range(self.classes)], 1).float()
        total = torch.zeros((), device=logits.device)
        for c in range(self.classes):
            mine, truth = p[:, c], one_hot[:, c]
            if self.ga and truth.sum() == 0:
                total = total + (mine.detach() * mine).mean()
            else:
                top = 2 * (mine * truth).sum() + 1e-10
                total = total + 1 - top / ((mine * mine).sum() + (truth * truth).sum() + 1e-10)
        return total / self.classes
