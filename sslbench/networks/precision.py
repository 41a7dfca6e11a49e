"""Which arithmetic a job trains in: reduced precision only where it is fast and agrees with fp32, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sslbench.core.errors import UsageError

# Largest relative error of a layer's bf16 output or gradients. Rounding gives 0.003; the wrong gradients that the probe
# is for (see `networks.base.Conv3d`) give 0.8 and more, or are not finite.
_LARGEST_ERROR = 0.05

Arithmetic = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Precision:
    """How a job computes.

    Attributes:
        name: `fp32`; `tf32`, on a GPU alone: convolutions with products of 10 bits, torch's default there; or `bf16`
            (autocast, parameters in fp32).
        reason: why, in a few words, for the provenance record.
        device: of the job.
        channels_last: whether images and weights lie channels-last.
    """

    name: Arithmetic
    reason: str
    device: torch.device
    channels_last: bool

    def autocast(self) -> torch.autocast:
        """The context for forwards and loss terms."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.name == "bf16")

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, 2-D and 3-D convolution weights in the memory format; on a GPU the process
        computes in this precision from here on."""
        if self.device.type == "cuda":
            allow_tf32(self.name != "fp32")
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


def allow_tf32(allowed: bool) -> None:
    """Whether this process's convolutions on a GPU may round products to 10 bits; matrix products never do."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = False


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 there; the same answer every time on a machine.

    A GPU from Ampere on; a CPU with AMX tiles, or AMD's with AVX512-BF16. Intel's AVX512-BF16 without AMX is slower
    than its fp32: measured +28 % (U-Net) and +32 % (V-Net) for a step. That of AMD was not measured here: its
    documented rate is twice that of fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (_cpu_has("amx_tile") or (_cpu_has("avx512_bf16") and _vendor() == "AuthenticAMD"))


def prefers_channels_last(device: torch.device) -> bool:
    """Whether convolutions are faster channels-last: on a GPU, whose tensor cores want it, and on a CPU with
    AVX512-BF16, whatever the precision."""
    return device.type == "cuda" or (device.type == "cpu" and _cpu_has("avx512_bf16"))


def _cpu_has(feature: Literal["amx_tile", "avx512_bf16"]) -> bool:
    supported = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return supported is not None and bool(supported())


def _vendor() -> str:
    """The processor's vendor as it names itself; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")), "")


def cudnn_name(version: int) -> str:
    """A cuDNN's version for people: 91002 is 9.10.2."""
    major, rest = divmod(version, 10000)
    return f"{major}.{rest // 100}.{rest % 100}"


def cudnn_fault(arithmetic: Arithmetic, dims: int, version: int | None) -> str:
    """Why a cuDNN must not compute in an arithmetic; empty where nothing speaks against it.

    Args:
        arithmetic: to compute in.
        dims: of the convolutions.
        version: as `torch.backends.cudnn.version()` gives it (91002: 9.10.2); None: there is no cuDNN.
    """
    if dims != 3 or version is None:
        return ""
    name = f"cuDNN {cudnn_name(version)}"
    if arithmetic == "bf16" and 90800 <= version < 91500:
        return f"{name} gets bf16 convolutions in 3-D wrong, or torch avoids it slowly (pytorch #163539, #166122)"
    if arithmetic == "tf32" and 91002 <= version <= 91500:
        return f"{name} gets TF32 convolutions in 3-D wrong (pytorch #167024)"
    return ""


def _fault(arithmetic: Arithmetic, device: torch.device, dims: int) -> str:
    """Why a device cannot, or must not, compute in an arithmetic; empty where it can."""
    if device.type != "cuda":
        return "TF32 is an arithmetic of GPUs" if arithmetic == "tf32" else ""
    if arithmetic == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU is older than Ampere and has no TF32"
    return cudnn_fault(arithmetic, dims, torch.backends.cudnn.version())


def choose_precision(
    asked: Literal["auto", "fp32", "tf32", "bf16"],
    device: torch.device,
    build: Callable[[], nn.Module],
    patch: Tensor,
) -> Precision:
    """The precision of a job.

    Args:
        asked: the recipe's; `auto` takes bf16 where it is fast and, for this network, patch and device, every layer
            agrees with its fp32 twin; else, on a GPU, tf32, in which published code runs; else fp32.
        device: of the job.
        build: makes the network.
        patch: (B, channels, *S) image on the device.

    Raises:
        UsageError: an arithmetic was asked for that the device has not, or that its cuDNN gets wrong.
    """
    channels_last = prefers_channels_last(device)
    faults = {name: _fault(name, device, patch.ndim - 2) for name in get_args(Arithmetic)}
    if asked != "auto":
        if faults[asked]:
            raise UsageError(f"precision {asked}: {faults[asked]}", "precision: auto takes what is right here")
        return Precision(asked, "asked for", device, channels_last)
    if not fast_bf16(device):
        reason = f"bf16 is not fast on this {device.type}"
    elif faults["bf16"]:
        reason = faults["bf16"]
    else:
        tried = Precision("bf16", "", device, channels_last)
        error, layer = worst_error(tried, build(), patch)
        if error < _LARGEST_ERROR:
            return replace(tried, reason=f"fast here; agrees with fp32 to {error:.1g}, layer by layer")
        reason = f"bf16 in layer {layer} is off by {error:.2g} of its size on this {device.type}"
    if device.type == "cuda" and not faults["tf32"]:
        return Precision("tf32", f"{reason}; tf32 as published code", device, channels_last)
    return Precision("fp32", reason, device, channels_last)


def as_tested(name: Arithmetic, device: torch.device, dims: int) -> Precision:
    """The precision in which a run was tested, or fp32 where the device cannot have it.

    Args:
        name: as the run recorded it.
        device: to predict on.
        dims: of the convolutions.
    """
    fault = _fault(name, device, dims) or ("bf16 is not fast here" if name == "bf16" and not fast_bf16(device) else "")
    return Precision("fp32" if fault else name, fault or "as the run was tested", device, prefers_channels_last(device))


@dataclass
class _Met:
    """What a layer met in a pass: its input, and the gradient of its output."""

    layer: nn.Module
    content: Tensor
    gradient: Tensor | None = None


def worst_error(precision: Precision, network: nn.Module, patch: Tensor) -> tuple[float, str]:
    """The largest relative error of a layer in `precision`, of its output, its weight's or its input's gradient, and
    that layer's name.

    Each layer is compared with its fp32 twin on the very input and output gradient that it met, so that rounding in
    the other layers does not count: a whole network's gradient differs by far more from rounding alone.

    Args:
        precision: to try.
        network: with the job's options; it is used up.
        patch: (B, channels, *S) image on the device.
    """
    network = precision.place(network).train()
    seen: dict[str, _Met] = {}

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            met = seen[name] = _Met(layer, inputs[0].detach())
            output.register_hook(lambda gradient: setattr(met, "gradient", gradient.detach()))

        return layer.register_forward_hook(keep)

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
    hooks = [watch(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]
    with precision.autocast():
        outputs = network(precision.layout(patch))
    logits = outputs if isinstance(outputs, Tensor) else torch.stack(list(outputs))
    logits.float().square().mean().backward()
    for hook in hooks:
        hook.remove()
    errors = {name: _error(precision, met) for name, met in seen.items() if met.gradient is not None}
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


def _error(precision: Precision, met: _Met) -> float:
    """The largest relative error of what a layer makes of what it met."""
    dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
    content = met.content.to(dtype)  # as the layer sees it: rounding of its input is no fault of its own
    with precision.autocast():
        found = _pass(met.layer, content, met.gradient)
    with _exact(precision.device):
        exact = _pass(met.layer, content.float(), met.gradient)
    parts = [(one - other).norm() / other.norm().clamp_min(1e-30) for one, other in zip(found, exact, strict=True)]
    return max(float(torch.nan_to_num(part, nan=torch.inf, posinf=torch.inf)) for part in parts)


def _pass(layer: nn.Module, content: Tensor, gradient: Tensor | None) -> list[Tensor]:
    """A layer's output, and the gradients of its weight and input."""
    content, weight = content.detach().requires_grad_(), layer.get_parameter("weight").detach().clone().requires_grad_()
    output: Tensor = torch.func.functional_call(layer, {"weight": weight}, (content,))
    assert gradient is not None
    gradients = torch.autograd.grad(output, [weight, content], gradient.to(output.dtype))
    return [part.detach().float() for part in (output, *gradients)]


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Without autocast and TF32."""
    before = torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        allow_tf32(before)
