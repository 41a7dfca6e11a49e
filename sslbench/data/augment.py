"""Augmentation: geometry as coordinate maps, and distortions of the intensities of whole batches.

A map tells for each voxel of the augmented image which voxel of the item it is: row = a₀ + a₁u + a₂v and
col = b₀ + b₁u + b₂v for two of its axes, which is all that the papers' augmentations turn or flip. So cutting,
augmenting and resizing a patch are one gather.

A distortion takes patches where they lie. What is drawn for a patch comes from that patch's generator, on the
CPU; noise comes from a generator of the device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslbench.config.recipe import (
    Blur,
    Brightness,
    Contrast,
    Cutout,
    Distortion,
    Gamma,
    Geometry,
    Jitter,
    Noise,
    ThreeOfSix,
)
from sslbench.core.transfer import send


@dataclass(frozen=True)
class PlaneMap:
    """From the axes (u, v) of an augmented image to those of the image that it was made from.

    Attributes:
        size: (U, V) of the augmented image.
        matrix: [[a₁, a₂], [b₁, b₂]].
        offset: [a₀, b₀].
        exact: whether every voxel maps to a voxel (turns by 90° and flips).
    """

    size: tuple[int, int]
    matrix: np.ndarray
    offset: np.ndarray
    exact: bool = True


def identity(size: tuple[int, int]) -> PlaneMap:
    """The map that changes nothing."""
    return PlaneMap(size, np.eye(2), np.zeros(2))


def rot90_flip(size: tuple[int, int], quarter_turns: int, axis: int) -> PlaneMap:
    """`np.flip(np.rot90(image, quarter_turns), axis)`."""
    U, V = size if quarter_turns % 2 == 0 else size[::-1]
    H, W = size
    # np.rot90(m)[u, v] = m[v, W - 1 - u], and so on.
    matrix, offset = {
        0: ([[1, 0], [0, 1]], [0, 0]),
        1: ([[0, 1], [-1, 0]], [0, W - 1]),
        2: ([[-1, 0], [0, -1]], [H - 1, W - 1]),
        3: ([[0, -1], [1, 0]], [H - 1, 0]),
    }[quarter_turns % 4]
    turned, start = np.array(matrix, float), np.array(offset, float)
    start += turned[:, axis] * ((U, V)[axis] - 1)
    turned[:, axis] *= -1
    return PlaneMap((U, V), turned, start)


def rotation(size: tuple[int, int], degrees: float) -> PlaneMap:
    """`scipy.ndimage.rotate(image, degrees, order=0, reshape=False)`; what comes from outside is 0."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array(size) - 1) / 2
    return PlaneMap(size, matrix, centre - matrix @ centre, exact=False)


def flips(size: tuple[int, int], first: bool, second: bool) -> PlaneMap:
    """Flips along the one axis, the other, or both."""
    signs = np.where([first, second], -1.0, 1.0)
    return PlaneMap(size, np.diag(signs), np.where([first, second], np.array(size) - 1.0, 0.0))


def turn(size: tuple[int, int], quarter_turns: int) -> PlaneMap:
    """`np.rot90(image, quarter_turns)`."""
    flipped = rot90_flip(size, quarter_turns, 0)
    return then(flipped, flips(flipped.size, True, False))


def then(first: PlaneMap, second: PlaneMap) -> PlaneMap:
    """The map of an image that `first` and after it `second` was applied to."""
    offset = first.offset + first.matrix @ second.offset
    return PlaneMap(second.size, first.matrix @ second.matrix, offset, first.exact and second.exact)


def draw(name: Geometry | None, size: tuple[int, int], random: np.random.Generator) -> PlaneMap:
    """Draw the map of a weak view.

    `rot90_flip`: a turn by 0, 90, 180 or 270 degrees, then always one flip (LA). `ssl4mis`: half of the time that;
    else half of the time a rotation by a whole angle in [-20, 19] degrees; else nothing (the RandomGenerator of the
    ACDC papers). `flips`: along each axis half of the time (DHC, SKCDF). `flip_rot90`: half of the time a flip along
    one of the axes, then half of the time a turn by 90, 180 or 270 degrees (MONAI, as CDMA uses it on DigestPath).

    Args:
        name: None: the identity.
        size: of the two axes.
        random: the patch's generator.
    """
    if name is None:
        return identity(size)
    if name == "flips":
        return flips(size, random.random() < 0.5, random.random() < 0.5)
    if name == "flip_rot90":
        plane = identity(size)
        if random.random() < 0.5:
            axis = int(random.integers(2))
            plane = flips(size, axis == 0, axis == 1)
        return then(plane, turn(size, int(random.integers(1, 4)))) if random.random() < 0.5 else plane
    if name == "rot90_flip" or random.random() > 0.5:
        return rot90_flip(size, int(random.integers(4)), int(random.integers(2)))
    if random.random() > 0.5:
        return rotation(size, float(random.integers(-20, 20)))
    return identity(size)


# -------------------------------------------------------------------------------------------------------- distortions

Draws = Sequence[np.random.Generator]  # one per patch
Gaussian = Callable[[Tensor], Tensor]  # standard normal noise like a tensor


def distort(
    distortions: Sequence[Distortion | ThreeOfSix], image: Tensor, label: Tensor, draws: Draws, gaussian: Gaussian
) -> tuple[Tensor, Tensor]:
    """Apply distortions in order.

    Args:
        distortions: of the recipe.
        image: (B, channels, *S) float32.
        label: (B, *S) int64, -1 where there is no truth.
        draws: a generator per patch.
        gaussian: makes noise.

    Returns:
        New image and label; the label differs only where a distortion erases or moves what it named.
    """
    for kind in distortions:
        if isinstance(kind, ThreeOfSix):
            image, label = _three_of_six(kind, image, label, draws)
        elif isinstance(kind, Cutout):
            image, label = _cutout(kind, image, label, draws, gaussian)
        elif isinstance(kind, Jitter):
            image = _jitter(kind, image, draws)
        else:
            chosen = [row for row, random in enumerate(draws) if random.random() < kind.p]
            strength = [random.uniform(*_drawn(kind, random)) for random in draws]
            amount = _per_patch(strength, image)
            if isinstance(kind, Noise):
                noise = amount * gaussian(image)
                changed = image + (noise if kind.limit is None else noise.clamp(-kind.limit, kind.limit))
            else:
                changed = _changed(kind, image, amount)
            image = torch.where(_per_patch([row in chosen for row in range(len(image))], image) > 0, changed, image)
    return image, label


def _drawn(kind: Noise | Blur | Brightness | Contrast | Gamma, random: np.random.Generator) -> tuple[float, float]:
    """The range to draw a strength from; contrast and gamma first choose its side of 1."""
    if isinstance(kind, Noise):
        return kind.std
    if isinstance(kind, Blur):
        return kind.sigma
    if isinstance(kind, Brightness):
        return kind.factor
    low, high = kind.factor if isinstance(kind, Contrast) else kind.power
    if low < 1 < high:
        return (low, 1.0) if random.random() < 0.5 else (1.0, high)
    return low, high


def _changed(kind: Blur | Brightness | Contrast | Gamma, x: Tensor, strength: Tensor) -> Tensor:
    if isinstance(kind, Blur):
        return _blurred(x, strength.flatten(), max(kind.sigma))
    if isinstance(kind, Brightness):
        return x * strength
    inner = tuple(range(1, x.ndim))
    mean, low, high = x.mean(inner, keepdim=True), x.amin(inner, keepdim=True), x.amax(inner, keepdim=True)
    if isinstance(kind, Contrast):
        return ((x - mean) * strength + mean).clamp(low, high)
    bent = ((x - low) / (high - low).clamp_min(1e-7)) ** strength
    before, after = x.std(inner, correction=0, keepdim=True), bent.std(inner, correction=0, keepdim=True)
    return (bent - bent.mean(inner, keepdim=True)) * (before / after.clamp_min(1e-7)) + mean


_SIX = (None, None, Blur(), Brightness(), Contrast(), Gamma())  # rotation and scale have no kind of their own


def _three_of_six(kind: ThreeOfSix, image: Tensor, label: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Deviations from GenericSSL: images are resampled linearly, not by cubic splines, and labels to the nearest."""
    orders = [random.permutation(6)[:3] for random in draws]
    applied = [random.random(3) < kind.p for random in draws]
    strengths = [
        [
            np.deg2rad(random.uniform(-kind.degrees, kind.degrees)),
            random.uniform(*kind.zoom) if random.random() < 0.5 else 1.0,
            *(random.uniform(*_drawn(other, random)) for other in _SIX if other is not None),
        ]
        for random in draws
    ]
    image, label = image.clone(), label.clone()
    for position, (number, other) in itertools.product(range(3), enumerate(_SIX)):
        rows = [row for row, order in enumerate(orders) if order[position] == number and applied[row][position]]
        if not rows:
            continue
        at = send(torch.tensor(rows), image.device)
        drawn = [strengths[row][number] for row in rows]
        if other is not None:
            image[at] = _changed(other, image[at], _per_patch(drawn, image))
        else:
            angles, zooms = (drawn, [1.0] * len(rows)) if number == 0 else ([0.0] * len(rows), drawn)
            image[at], label[at] = _moved(image[at], label[at], angles, zooms)
    return image, label


def _moved(x: Tensor, label: Tensor, angles: Sequence[float], zooms: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Turn patches about their centre in the plane of the last two axes, and show a part `zooms` of them on every
    axis; what comes from outside is 0."""
    dims = x.ndim - 2
    half = (np.array(x.shape[2:], float) - 1) / 2
    theta = np.zeros((len(x), dims, dims + 1))
    for row, (angle, zoom) in enumerate(zip(angles, zooms, strict=True)):
        matrix = np.eye(dims)
        matrix[-2:, -2:] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        # From voxels to torch's coordinates, which go from -1 to 1 along each axis and name the last axis first.
        theta[row, :, :dims] = (zoom * matrix * half / half[:, None])[::-1, ::-1]
    grid = torch.nn.functional.affine_grid(
        send(torch.tensor(theta, dtype=torch.float32), x.device), list(x.shape), align_corners=True
    )
    sample = torch.nn.functional.grid_sample
    moved = sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    known = sample(label.unsqueeze(1).float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return moved, torch.where(
        label.flatten(1).amin(1).view(-1, *[1] * dims) < 0, label, known.squeeze(1).round().long()
    )


def _blurred(x: Tensor, sigma: Tensor, widest: float) -> Tensor:
    """Gaussian blur of each patch by its own `sigma` in voxels, cut at 4 of them, along every axis of space; what lies
    outside is taken to be as the border."""
    radius = max(1, math.ceil(4 * widest))
    steps = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    B, C = x.shape[:2]
    for axis in range(2, x.ndim):
        lines = x.movedim(axis, -1)
        padded = torch.nn.functional.pad(lines.reshape(B * C, -1, lines.shape[-1]), (radius, radius), mode="replicate")
        # One group per patch: all its lines, of all channels, meet its kernel.
        padded = padded.reshape(B, -1, padded.shape[-1]).transpose(0, 1)
        soft = torch.nn.functional.conv1d(padded, kernel[:, None], groups=B).transpose(0, 1)
        x = soft.reshape(lines.shape).movedim(-1, axis)
    return x.contiguous()


def _cutout(kind: Cutout, image: Tensor, label: Tensor, draws: Draws, gaussian: Gaussian) -> tuple[Tensor, Tensor]:
    """A box at a random place, filled with zeros and ones; its label, where there is one, is background."""
    H, W = image.shape[-2:]
    boxes = []
    for random in draws:
        area, aspect = random.uniform(*kind.area) * H * W, random.uniform(*kind.aspect)
        high, wide = min(int(math.sqrt(area * aspect)), H), min(int(math.sqrt(area / aspect)), W)
        top, left = int(random.integers(H - high + 1)), int(random.integers(W - wide + 1))
        boxes.append((top, top + high, left, left + wide) if random.random() < kind.p else (0, 0, 0, 0))
    first_row, end_row, first_col, end_col = (_per_patch(edge, image) for edge in zip(*boxes, strict=True))
    rows, cols = torch.arange(H, device=image.device).view(-1, 1), torch.arange(W, device=image.device)
    erased = (rows >= first_row) & (rows < end_row) & (cols >= first_col) & (cols < end_col)
    fill = (gaussian(image[:, :1]) > 0).float()
    return torch.where(erased, fill, image), torch.where(erased[:, 0] & (label >= 0), 0, label)


def _jitter(kind: Jitter, image: Tensor, draws: Draws) -> Tensor:
    """As torchvision's ColorJitter, each patch with an order and factors of its own."""

    def factors(strength: float) -> list[float]:
        return [random.uniform(max(0.0, 1 - strength), 1 + strength) for random in draws]

    orders = [random.permutation(4) for random in draws]
    drawn = [
        factors(kind.brightness),
        factors(kind.contrast),
        factors(kind.saturation),
        [random.uniform(-kind.hue, kind.hue) for random in draws],
    ]
    steps = (_brightness, _contrast, _saturation, _hue)
    image = image.clone()
    for position in range(4):
        for number, step in enumerate(steps):
            rows = [row for row, order in enumerate(orders) if order[position] == number]
            if rows and (number < 2 or image.shape[1] == 3):
                at = send(torch.tensor(rows), image.device)
                image[at] = step(image[at], _per_patch([drawn[number][row] for row in rows], image))
    return image


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(x).mean(tuple(range(1, x.ndim)), keepdim=True)
    return (factor * x + (1 - factor) * mean).clamp(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * _grey(x)).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    """(B, 1, *S): luma of red, green and blue (ITU-R BT.601), else the mean of the channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by a share of the circle: to hue, saturation and value and back."""
    red, green, blue = x.unbind(1)
    value, lowest = x.amax(1), x.amin(1)
    chroma = value - lowest
    some = chroma.clamp_min(1e-12)
    hue = torch.where(
        value == red,
        (green - blue) / some,
        torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    hue = torch.where(chroma > 0, hue, 0.0) + 6 * shift[:, 0]
    # Every channel is value - chroma·max(0, min(k, 4 - k, 1)) with k its distance along the circle.
    channels = []
    for start in (5, 3, 1):
        k = (start + hue) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def _per_patch(values: Sequence[float], like: Tensor) -> Tensor:
    """One number per patch, to be broadcast over (B, channels, *S)."""
    tensor = send(torch.tensor(values, dtype=torch.float32), like.device)
    return tensor.view(-1, *[1] * (like.ndim - 1))
