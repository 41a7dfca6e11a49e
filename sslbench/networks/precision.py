"""Which arithmetic a job trains in: reduced precision only where it is fast and its gradients agree with fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

# Largest relative error of a layer's bf16 weight gradient. Rounding gives 0.002; the wrong gradients that the probe is
# for (see `networks.base.Conv3d`) give 0.8 and more, or are not finite.
_LARGEST_ERROR = 0.05


@dataclass(frozen=True)
class Precision:
    """How a job computes.

    Attributes:
        name: `fp32`, or `bf16` (autocast, parameters in fp32).
        reason: why, in a few words, for the provenance record.
        device: of the job.
        channels_last: whether images and weights lie channels-last.
    """

    name: Literal["fp32", "bf16"]
    reason: str
    device: torch.device
    channels_last: bool

    def autocast(self) -> torch.autocast:
        """The context for forwards and loss terms."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.name == "bf16")

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, 2-D and 3-D convolution weights in the memory format."""
        module = module.to(self.device)
        if self.channels_last:
            for parameter in module.parameters():
                parameter.data = self.layout(parameter.data)
        return module

    def layout(self, tensor: Tensor) -> Tensor:
        """A (B, c, *S) tensor in the memory format; others as they are."""
        if self.channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        if self.channels_last and tensor.ndim == 5:
            return tensor.contiguous(memory_format=torch.channels_last_3d)
        return tensor


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 there: a CPU with AVX512-BF16 (3 to 5 times), a GPU from Ampere on."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())


def choose_precision(
    asked: Literal["auto", "fp32", "bf16"], device: torch.device, build: Callable[[], nn.Module], patch: Tensor
) -> Precision:
    """The precision of a job.

    Args:
        asked: the recipe's; `auto` takes bf16 where it is fast and, for this network, patch and device, every layer's
            gradient agrees with its fp32 twin.
        device: of the job.
        build: makes the network.
        patch: (B, channels, *S) image on the device.
    """
    channels_last = device.type == "cpu" and fast_bf16(device)
    if asked == "fp32":
        return Precision("fp32", "asked for", device, channels_last)
    if asked == "bf16":
        return Precision("bf16", "asked for", device, channels_last)
    if not fast_bf16(device):
        return Precision("fp32", f"bf16 is not fast on this {device.type}", device, channels_last)
    error, layer = worst_gradient_error(Precision("bf16", "", device, channels_last), build(), patch)
    if not error < _LARGEST_ERROR:
        reason = f"the bf16 gradient of layer {layer} is off by {error:.2g} of its size on this {device.type}"
        return Precision("fp32", reason, device, channels_last)
    return Precision(
        "bf16", f"fast here; gradients agree with fp32 to {error:.1g}, layer by layer", device, channels_last
    )


def worst_gradient_error(precision: Precision, network: nn.Module, patch: Tensor) -> tuple[float, str]:
    """The largest relative error of a layer's weight gradient in `precision`, and that layer's name.

    Each layer is compared with its fp32 twin on the very input and output gradient that it met, so that rounding in
    the other layers does not count: a whole network's gradient differs by far more from rounding alone.

    Args:
        precision: to try.
        network: with the job's options; it is used up.
        patch: (B, channels, *S) image on the device.
    """
    network = precision.place(network).train()
    seen: dict[str, list[Any]] = {}

    def watch(name: str, layer: nn.Module) -> None:
        def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # The layer saw its input rounded to the precision that it computed in.
            seen[name] = [layer, inputs[0].detach().to(output.dtype).float()]
            output.register_hook(lambda gradient: seen[name].append(gradient.detach().float()))

        layer.register_forward_hook(keep)

    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)):
            watch(name, layer)
    with precision.autocast():
        outputs = network(precision.layout(patch))
    logits = outputs if isinstance(outputs, Tensor) else torch.stack(list(outputs))
    logits.float().square().mean().backward()

    errors = {}
    for name, (layer, content, *gradient) in seen.items():
        if gradient and layer.weight.grad is not None:
            weight = layer.weight.detach().clone().requires_grad_()
            output = torch.func.functional_call(layer, {"weight": weight}, (content,))
            (exact,) = torch.autograd.grad(output, weight, gradient[0])
            error = (layer.weight.grad - exact).norm() / exact.norm().clamp_min(1e-30)
            errors[name] = torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf)
    worst = max(errors, key=lambda name: float(errors[name]))
    return float(errors[worst]), worst
