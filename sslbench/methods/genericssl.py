"""GenericSSL: a decoder learns from label maps that a diffusion model and a difficulty-aware decoder agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.weighting import DiffDW, batch_dice
from sslbench.methods.base import Build, Method, Phase, StepCost
from sslbench.networks.base import Decoder
from sslbench.networks.diffusion_vnet import DiffusionVNet

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class GenericSSLOptions(Options):
    """Options of `genericssl`."""

    timesteps: int = Field(default=1000, gt=1, description="of the diffusion (GenericSSL)")
    samplings: int = Field(default=10, gt=1, description="DDIM steps of a pseudo-label (GenericSSL)")
    pull: float = Field(
        default=0.01, ge=0, le=1, description="share of the two other decoders in the one that predicts, every step"
    )
    window: int = Field(default=50, gt=0, description="τ, steps that the difficulty is averaged over (GenericSSL)")
    released_statistics: bool = Field(
        default=False,
        description="the encoder's running statistics, which inference takes, count the denoising passes too (code)",
    )


@register("method", "genericssl", aliases=("aandd",))
class GenericSSL(Method):
    """Denoise label maps, learn labelled patches by difficulty, and teach a third decoder what both say of unlabelled
    ones (GenericSSL, also A&D; Wang and Li, NeurIPS 2023).

    One encoder has three decoders: ξ denoises the label map of a labelled patch with noise of a random step, ψ
    segments labelled patches with class weights C·d, d the difficulty of DHC's DiffDW, from ξ's Dice, and θ learns the
    unlabelled ones. Their labels are argmax of smoothed Gumbel-softmax samples of a ten-step DDIM plus ψ's
    probabilities. Before every step θ moves by a hundredth towards the mean of ξ and ψ. Inference: θ.

    A loss that needs a reference holds ξ and ψ against each other, and θ against ψ.

    Cost: two forward and backward passes over labelled patches and one over unlabelled ones, and eleven forward over
    those: ten of the DDIM and ψ's own.

    Deviations:
    - Its network has three dimensions, and so has the method; a 2-D recipe is refused.
    - Its three-of-six augmentation and its rate are the recipe's business, and so are its criteria and its lists
      (`-r dhc-synapse --set splits=genericssl`).
    - The encoder's running batch statistics, which inference takes, are those of its three plain passes of a step. The
      released code counts the eleven denoising passes too (`released_statistics`). On the phantom, after 360
      iterations, the same weights then had a DSC of 2 % on validation patches, where the statistics of the patches
      themselves gave 65 %.
    """

    title = "GenericSSL"
    group = "Imbalance"
    Options = GenericSSLOptions
    defaults = {"network.name": "diffusion_vnet", "ramp.weight": 10.0, "ramp.every": "epoch"}
    term_kinds = ("label", "pseudo")
    unlabeled_learners = ("net",)
    taught_by = {"net": ("weighted",)}
    made_targets = {"net": "of a denoised sample and the decoder ψ together"}
    check_exemptions = {"supervised_at_zero": "the decoder that predicts learns from pseudo-labels alone"}
    options: GenericSSLOptions
    kept: Tensor

    @classmethod
    def learners_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return "denoiser", "weighted", "net"

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        network = registry.component("network", job.recipe.network.name)
        if not issubclass(network, DiffusionVNet):
            return (
                f"its network is diffusion_vnet, which is three-dimensional: {job.recipe.network.name} cannot denoise"
            )
        return None

    def __init__(self, options: GenericSSLOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")
        self.difficulty = DiffDW(statistics.num_classes, window=options.window)
        self.register_buffer("kept", alpha_bars(options.timesteps), persistent=False)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        C = self.statistics.num_classes
        theta, psi = self._decoders()
        self._pull(theta, psi)
        denoised = self._denoised(image[:L], labels[:L], step)
        weight = C * self.difficulty.difficulty(batch_dice(denoised.detach(), labels[:L]))
        step.log("weight/weighted", weight)
        weighted = psi.logits(self.net.encode(image[:L]))
        with torch.no_grad():
            sample, agreed = self._sample(image[L:], step), psi.logits(self.net.encode(image[L:])).float()
            noise = torch.rand(sample.shape, device=sample.device, generator=step.generator("gumbel", sample.device))
            pseudo = classes_of(smooth(gumbel_softmax(sample, noise)) + agreed.softmax(1))
        learner = theta.logits(self.net.encode(image[L:]))

        self.loss.observe(step, "denoiser", denoised, labels[:L])
        self.loss.observe(step, "weighted", torch.cat([weighted.detach().float(), agreed]), labels)
        self.loss.observe(step, "net", learner, labels[L:])
        supervised = self.loss.supervised(
            denoised, labels[:L], key="denoiser", reference=self.reference("weighted", weighted)
        ) + self.loss.supervised(
            weighted,
            labels[:L],
            key="weighted",
            reference=self.reference("denoiser", denoised),
            class_weight=weight,
        )
        taught = self.loss.supervised(
            learner, pseudo, source="pseudo", key="net", reference=self.reference("weighted", agreed)
        )
        return {"loss": supervised + step.consistency_weight * taught, "supervised": supervised, "pseudo": taught}

    def _decoders(self) -> tuple[Decoder, Decoder]:
        theta, psi = self.net.decoders
        assert isinstance(theta, Decoder) and isinstance(psi, Decoder)
        return theta, psi

    @property
    def _diffusion(self) -> DiffusionVNet:
        base = self.net.base
        assert isinstance(base, DiffusionVNet)
        return base

    @torch.no_grad()
    def _pull(self, theta: nn.Module, psi: nn.Module) -> None:
        """θ ← (1 - a)·θ + a·½(ξ + ψ), parameters alone, by name: ξ has time shifts that θ has not."""
        denoiser = dict(self._diffusion.denoiser.decoder.named_parameters())
        others = dict(psi.named_parameters())
        for name, parameter in theta.named_parameters():
            parameter.lerp_((denoiser[name] + others[name]) / 2, self.options.pull)

    def _denoised(self, image: Tensor, labels: Tensor, step: Step) -> Tensor:
        """ξ's logits of label maps with noise of one random step per patch."""
        clean = 2 * F.one_hot(labels, self.statistics.num_classes).movedim(-1, 1).float() - 1
        generator = step.generator("diffusion", image.device)
        time = torch.randint(self.options.timesteps, (len(image),), device=image.device, generator=generator)
        noise = torch.empty_like(clean).normal_(generator=generator)
        recorded = self.options.released_statistics
        return self._diffusion.denoise(image, diffuse(clean, noise, self.kept[time]), time, recorded)

    def _sample(self, image: Tensor, step: Step) -> Tensor:
        """The label map (B, C, *S) in [-1, 1] that a deterministic DDIM makes of noise, given the image; fp32."""
        shape = (len(image), self.statistics.num_classes, *image.shape[2:])
        noisy = torch.randn(shape, device=image.device, generator=step.generator("sampling", image.device))
        times = sampling_times(self.options.timesteps, self.options.samplings)
        for time, following in zip(times, [*times[1:], None], strict=True):
            now = torch.full((len(image),), time, device=image.device)
            clean = self._diffusion.denoise(image, noisy, now, self.options.released_statistics).float().clamp(-1, 1)
            if following is not None:
                noisy = ddim_step(noisy, clean, self.kept[time], self.kept[following])
        return clean

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=2, unlabeled=1, unlabeled_forward=self.options.samplings + 1)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return self._decoders()[0].logits(self.net.encode(x)).float().softmax(1)


def alpha_bars(timesteps: int) -> Tensor:
    """ᾱ (T,) of a diffusion whose β goes evenly from 10⁻⁴ to 0.02 (Ho et al., NeurIPS 2020), fp32."""
    beta = torch.linspace(1e-4, 2e-2, timesteps, dtype=torch.float64)
    return (1 - beta).cumprod(0).float()


def sampling_times(timesteps: int, samplings: int) -> list[int]:
    """The diffusion steps of a DDIM, latest first: 999, 888, ..., 111, 0 for 10 of 1000."""
    return [round(number * (timesteps - 1) / (samplings - 1)) for number in reversed(range(samplings))]


def diffuse(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """√ᾱ·x₀ + √(1 - ᾱ)·ε; ᾱ (B,)."""
    alpha_bar = alpha_bar.view(-1, *[1] * (clean.ndim - 1))
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def ddim_step(noisy: Tensor, clean: Tensor, alpha_bar: Tensor, following: Tensor) -> Tensor:
    """The next x of a DDIM without noise (η = 0; Song et al., ICLR 2021), from x and the x₀ that it is taken for.

    Args:
        noisy: (B, C, *S), x at a step with ᾱ = `alpha_bar`.
        clean: (B, C, *S), x₀.
        alpha_bar, following: 0-d, ᾱ now and at the next step.
    """
    noise = (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
    return following.sqrt() * clean + (1 - following).sqrt() * noise


def gumbel_softmax(x: Tensor, uniform: Tensor) -> Tensor:
    """softmax(x + g) over the classes, g = -log(-log u) Gumbel noise of the uniform draws u, τ = 1."""
    tiny = torch.finfo(torch.float32).tiny
    return (x - (-(uniform.clamp_min(tiny).log())).clamp_min(tiny).log()).softmax(1)


def smooth(x: Tensor) -> Tensor:
    """Every channel convolved with a 3³ Gaussian of σ = 1 that sums to 1, zeros outside; x (B, C, X, Y, Z)."""
    side = torch.exp(-0.5 * torch.tensor([1.0, 0.0, 1.0], device=x.device))
    side = side / side.sum()
    kernel = side.view(3, 1, 1) * side.view(3, 1) * side
    return F.conv3d(x, kernel.expand(x.shape[1], 1, 3, 3, 3).contiguous(), padding=1, groups=x.shape[1])
