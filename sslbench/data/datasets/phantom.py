"""Procedural abdominal-CT-like volumes written in the layout of the official Synapse (BTCV) release.

The anatomy is a table of implicit shapes in millimetres, in a frame with x to the patient's right, y to the
front and z to the head. A case scales, shifts and warps that frame, varies every shape, and paints the shapes
one over the other, so that grids of any size sample the same patient. Two of the thirty patients (0007 and
0032) have had their gallbladder removed, as happens in the real data; every other organ is in every case.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from sslbench.core.files import atomic_path
from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.data.base import Preprocessing
from sslbench.data.datasets.synapse import GA_PREPROCESSING, NATIVE_PREPROCESSING, Synapse

CASE_IDS: tuple[str, ...] = tuple(f"{i:04d}" for i in (*range(1, 11), *range(21, 41)))
NO_GALLBLADDER: frozenset[str] = frozenset({"0007", "0032"})

FAT, MUSCLE, LUNG, GAS, AIR = -100.0, 57.0, -840.0, -900.0, -1000.0
SLAB_POINTS = 1_500_000  # sample points evaluated at once: bounds memory at any grid size
SAMPLE_MM = 2.8  # voxels longer than this are supersampled
PSF_MM = 0.9  # standard deviation of the scanner's blur

Array = NDArray[np.float32]
Vector = tuple[float, float, float]


class PhantomOptions(Options):
    """The sampling grid of the phantom; the anatomy does not depend on it."""

    size: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        default=(64, 56, 48), description="Voxels along x (left-right), y (back-front) and z (feet-head)."
    )
    extent_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        default=(352.0, 308.0, 264.0), description="Field of view along x, y and z, centred on the patient."
    )


def _rng(case_id: str, name: str) -> np.random.Generator:
    """Random stream of one named part of a case, independent of what else is drawn."""
    digest = hashlib.sha256(f"sslbench-phantom/{case_id}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _normal(rng: np.random.Generator, scale: float, size: int | tuple[int, ...] | None = None) -> Any:
    """Normal draws cut at two standard deviations, since an extreme organ would swallow its neighbours."""
    return scale * np.clip(rng.standard_normal(size), -2.0, 2.0)


class _Noise:
    """Smooth random field of mean 0 and standard deviation 1: cubic B-splines on a lattice fixed in mm."""

    REACH = np.array([230.0, 210.0, 190.0])

    def __init__(self, rng: np.random.Generator, pitch: float) -> None:
        self.pitch = pitch
        shape = np.ceil(2 * self.REACH / pitch).astype(int) + 4
        self.knots = (rng.standard_normal(shape) / 0.3315).astype(np.float32)  # 0.3315: std of the spline sum

    def on(self, axes: list[NDArray[np.float64]]) -> Array:
        """Values on the grid spanned by three coordinate axes (mm); shape (X, Y, Z)."""
        out = self.knots
        # Plain sums rather than a matrix product, whose rounding would depend on the BLAS at hand.
        for axis in (2, 1, 0):
            reach = self.REACH[axis]
            u = (np.clip(axes[axis], -reach, reach) + reach) / self.pitch
            i = np.floor(u).astype(int)
            t = u - i
            taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            shape = [-1 if a == axis else 1 for a in range(3)]
            weights = [(tap / 6).astype(np.float32).reshape(shape) for tap in taps]
            out = sum(np.take(out, i + k, axis) * weight for k, weight in enumerate(weights))
        return out


@dataclass(frozen=True)
class _Ball:
    """Ellipsoid: centre and radii in mm, tilt in degrees about x, y and z.

    As every part, it can `vary` at random, has `bounds` and a signed `distance` (mm, below 0 inside).
    """

    centre: Vector
    radii: Vector
    tilt: Vector = (0.0, 0.0, 0.0)

    def vary(self, rng: np.random.Generator, shift: NDArray, scale: float, jitter: float) -> _Ball:
        radii = np.multiply(self.radii, scale * (1 + _normal(rng, 0.04, 3)))
        return _Ball(tuple(self.centre + shift), tuple(radii), tuple(self.tilt + _normal(rng, 4.0, 3)))

    def _axes(self) -> NDArray[np.float64]:
        from scipy.spatial.transform import Rotation

        return Rotation.from_euler("xyz", self.tilt, degrees=True).as_matrix()

    def bounds(self) -> tuple[NDArray, NDArray]:
        half = np.linalg.norm(self._axes() * self.radii, axis=1)
        return self.centre - half, self.centre + half

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        x, y, z = (v - np.float32(c) for v, c in zip((x, y, z), self.centre, strict=True))
        near: Any = 0.0
        far: Any = 1e-6
        for axis, radius in zip(self._axes().T.astype(np.float32), self.radii, strict=True):
            q = (x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(radius)
            near, far = near + q * q, far + (q / np.float32(radius)) ** 2
        near = np.sqrt(near)
        return near * (near - 1) / np.sqrt(far)  # first order, exact enough near the surface


@dataclass(frozen=True)
class _Tube:
    """Tube along a spline through points (x, y, z, radius) in mm, thickened along the axes by `stretch`."""

    points: tuple[tuple[float, float, float, float], ...]
    stretch: Vector = (1.0, 1.0, 1.0)

    def vary(self, rng: np.random.Generator, shift: NDArray, scale: float, jitter: float) -> _Tube:
        points = np.array(self.points, float)
        points[:, :3] += shift + _normal(rng, jitter / 2, points[:, :3].shape)
        points[:, 3] *= scale * (1 + _normal(rng, 0.06, len(points)))
        return replace(self, points=tuple(map(tuple, points)))

    def bounds(self) -> tuple[NDArray, NDArray]:
        points = np.array(self.points)
        reach = points[:, 3:] * self.stretch
        return (points[:, :3] - reach).min(axis=0), (points[:, :3] + reach).max(axis=0)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        steps = np.linspace(0, len(self.points) - 1, 3 * (len(self.points) - 1) + 1)
        from scipy.interpolate import PchipInterpolator

        path = PchipInterpolator(np.arange(len(self.points)), np.array(self.points))(steps)
        path = (path / (*self.stretch, 1.0)).astype(np.float32)
        x, y, z = (v / np.float32(s) for v, s in zip((x, y, z), self.stretch, strict=True))
        best = np.full(x.shape, 1e6, np.float32)
        for a, b in pairwise(path):
            ab = b - a
            px, py, pz = x - a[0], y - a[1], z - a[2]
            h = np.clip((px * ab[0] + py * ab[1] + pz * ab[2]) / (ab[:3] @ ab[:3] + np.float32(1e-6)), 0, 1)
            gap = np.sqrt((px - h * ab[0]) ** 2 + (py - h * ab[1]) ** 2 + (pz - h * ab[2]) ** 2)
            np.minimum(best, gap - (a[3] + h * ab[3]), out=best)
        return best


def _tube(*points: tuple[float, float, float, float], stretch: Vector = (1.0, 1.0, 1.0)) -> _Tube:
    return _Tube(points, stretch)


@dataclass(frozen=True)
class _Shape:
    """One structure of the table: where it is, how it varies and what the scanner sees of it."""

    name: str
    label: int  # 0 for background structures
    hu: tuple[float, float]  # of the parenchyma or wall, early and late after contrast injection
    parts: tuple[_Ball | _Tube, ...]
    blend: float = 0.0  # mm over which the parts melt into one
    jitter: float = 3.0  # mm, standard deviation of the position
    scale: float = 0.06  # standard deviation of the relative size
    wobble: float = 1.0  # mm, standard deviation of the surface's bumps
    pitch: float = 22.0  # mm, size of the bumps
    halo: float = 0.0  # mm of fat kept free around it in an average patient
    rim: tuple[float, float] = (0.0, 0.0)  # outer layer: thickness in mm, HU above the rest
    content: tuple[float, float] | None = None  # HU inside the rim, mean and standard deviation over cases
    gas: float = 0.0  # mm of gas under the front wall, on average (supine patient)
    texture: float = 4.0  # HU, standard deviation of slow variations inside
    clip: bool = True  # kept below the diaphragm, inside the abdominal wall and off the spine
    within: int | None = None  # painted inside this organ only, whose label stays


# Painted in this order, later ones over earlier ones. A tube lists its points as (x, y, z, radius).
# fmt: off
_SHAPES: tuple[_Shape, ...] = (
    _Shape("heart", 0, (170, 135), (_Ball((-14, 32, 132), (62, 50, 50), (0, 20, 0)),), halo=4, clip=False),
    _Shape("iliac wings", 0, (180, 180), (
        _Ball((88, -46, -146), (13, 44, 46), (0, -14, 28)),
        _Ball((-88, -46, -146), (13, 44, 46), (0, 14, -28))),
        rim=(3, 260), clip=False),
    _Shape("colon", 0, (62, 72), (_tube(
        (92, -8, -150, 21), (98, -14, -95, 22), (92, 2, -50, 19), (80, 44, -52, 18), (35, 64, -66, 17),
        (-25, 64, -64, 17), (-70, 48, -28, 17), (-92, 14, 4, 16), (-98, -14, -25, 14), (-99, -24, -80, 13),
        (-96, -22, -150, 14)),),
        jitter=8, scale=0.1, wobble=2.6, pitch=15, rim=(3, 0), content=(30, 20), gas=18, texture=40),
    _Shape("duodenum", 0, (80, 85), (_tube(
        (30, 34, 4, 11), (50, 18, -4, 13), (54, 4, -30, 12), (38, -2, -52, 12), (0, 2, -54, 10),
        (-28, 14, -34, 11)),),
        wobble=1.6, pitch=12, rim=(3, 0), content=(35, 20), gas=3),
    _Shape("liver", 6, (98, 117), (
        _Ball((68, 3, 35), (66, 77, 86), (0, -13, 10)), _Ball((0, 42, 53), (65, 35, 35), (0, 10, 12)),
        _Ball((80, 4, -8), (36, 50, 44))),
        blend=16, jitter=4, wobble=3.5, pitch=34),
    _Shape("hepatic veins", 0, (100, 150), (
        _tube((24, -12, 82, 5), (50, -2, 66, 4), (84, -14, 40, 2.5)),
        _tube((22, -10, 82, 5), (34, 18, 64, 4), (50, 40, 30, 2.5)),
        _tube((62, 6, 44, 5), (84, 4, 30, 3.5), (98, -8, 4, 2.5)), _tube((60, 4, 44, 5), (76, 26, 48, 3)),
        _tube((20, 28, 50, 4), (-18, 40, 58, 2.5))),
        within=6, jitter=4, clip=False),
    _Shape("stomach", 7, (72, 88), (_tube(
        (-48, -22, 72, 20), (-54, -2, 60, 28), (-60, 22, 36, 25), (-54, 44, 10, 21), (-28, 54, -10, 18),
        (6, 48, -8, 15), (30, 38, 4, 10)),),
        jitter=5, scale=0.1, wobble=2.5, rim=(5, 0), content=(30, 16), gas=16, texture=7, halo=1.5),
    _Shape("spleen", 1, (132, 112), (_Ball((-94, -30, 40), (30, 47, 54), (14, -10, -26)),),
        jitter=4, scale=0.12, wobble=2.5, halo=1.5),
    _Shape("right kidney", 2, (150, 168), (_Ball((59, -40, -20), (27, 24, 53), (8, -14, -25)),),
        wobble=1.2, halo=6, rim=(7, 30)),
    _Shape("left kidney", 3, (150, 168), (_Ball((-58, -40, -6), (27, 24, 54), (8, 14, 25)),),
        wobble=1.2, halo=6, rim=(7, 30)),
    _Shape("right sinus", 0, (-60, -20), (_Ball((46, -35, -22), (15, 9, 24), (8, -14, -25)),), jitter=1.5),
    _Shape("left sinus", 0, (-60, -20), (_Ball((-45, -35, -8), (15, 9, 24), (8, 14, 25)),), jitter=1.5),
    _Shape("renal vessels", 0, (150, 145), (
        _tube((20, -20, -18, 5), (34, -28, -22, 4.5), (48, -36, -24, 4)),
        _tube((16, -16, -10, 5), (-8, -10, -8, 4), (-26, -22, -9, 5), (-46, -36, -10, 4)),
        _tube((-10, -30, -6, 3), (-30, -34, -8, 3)),
        _tube((-6, -32, -10, 3), (20, -34, -14, 3), (40, -38, -20, 3)),
        _tube((-8, -22, 6, 4), (-8, -4, -4, 3.5), (-4, 8, -30, 3.5), (-2, 14, -70, 3)),
        _tube((-10, -22, 22, 4), (-4, -8, 24, 3.5), (22, 4, 26, 2.5))), jitter=2),
    _Shape("crura", 0, (57, 60), (
        _tube((17, -28, 62, 5), (18, -33, 30, 5), (13, -36, -20, 4), stretch=(1, 1.7, 1)),
        _tube((-25, -30, 60, 5), (-24, -34, 30, 5), (-16, -38, -10, 4), stretch=(1, 1.7, 1))),
        jitter=1.5, clip=False),
    _Shape("iliac arteries", 0, (200, 150), (
        _tube((-6, -28, -94, 7), (-22, -30, -118, 6), (-38, -34, -150, 6)),
        _tube((-6, -28, -94, 7), (12, -28, -118, 6), (34, -32, -150, 6))), jitter=1.5),
    _Shape("pancreas", 11, (106, 90), (
        _tube((38, 8, -16, 10), (34, 12, -2, 14), (22, 16, 8, 11), (6, 22, 14, 9), (-24, 17, 22, 11),
        (-50, 2, 28, 11), (-72, -12, 33, 9)),),
        jitter=3, scale=0.09, wobble=2, pitch=11, halo=2.5, texture=7),
    _Shape("inferior vena cava", 9, (105, 138), (_tube(
        (16, -28, -98, 9.5), (20, -24, -40, 10), (22, -20, 0, 10.5), (24, -16, 45, 11), (22, -6, 92, 11),
        stretch=(1.15, 0.9, 1)),), jitter=2, scale=0.09, texture=7, clip=False),
    _Shape("aorta", 8, (215, 150), (_tube(
        (-15, -34, 150, 12), (-13, -32, 80, 11.5), (-8, -28, 20, 10), (-6, -26, -40, 9),
        (-6, -27, -94, 8.5)),),
        jitter=2, scale=0.08, wobble=0.5, halo=2, clip=False),
    _Shape("portal and splenic veins", 10, (115, 155), (
        _tube((10, 8, 8, 7), (26, 10, 24, 7), (42, 8, 36, 6.5), (60, 6, 46, 5)),
        _tube((40, 10, 36, 5.5), (26, 24, 46, 4.5)),
        _tube((10, 10, 10, 7), (10, 13, -12, 6), (6, 18, -34, 5)),
        _tube((10, 8, 10, 6), (-24, 1, 18, 5), (-52, -12, 27, 4.8), (-75, -25, 36, 4.5))),
        jitter=2, wobble=0.4),
    _Shape("gallbladder", 4, (10, 12), (_tube((42, 22, 8, 5), (50, 34, -6, 11), (56, 46, -22, 14)),),
        jitter=4, scale=0.12, rim=(1.5, 45), content=(8, 6), texture=2, halo=0.5),
    _Shape("esophagus", 5, (56, 62), (_tube(
        (-4, -12, 150, 8), (-6, -13, 112, 8), (-13, -12, 86, 8.5), (-28, -14, 68, 8.5), (-40, -16, 62, 8),
        stretch=(1.15, 0.9, 1)),), jitter=2, wobble=0.8, halo=1.5, texture=8, clip=False),
    _Shape("right adrenal gland", 12, (80, 70), (
        _tube((30, -33, 37, 3.4), (32, -42, 36, 3), (33, -48, 35, 2.7), stretch=(1, 1, 2.1)),
        _tube((30, -33, 37, 3.4), (38, -42, 36, 2.8), stretch=(1, 1, 2))),
        jitter=1.5, scale=0.04, wobble=0.2, pitch=12, halo=3, clip=False),
    _Shape("left adrenal gland", 13, (80, 70), (
        _tube((-36, -25, 30, 3.5), (-36, -35, 29, 3.1), (-35, -41, 28, 2.8), stretch=(1, 1, 2.2)),
        _tube((-36, -25, 30, 3.5), (-44, -33, 29, 2.8), stretch=(1, 1, 2))),
        jitter=1.5, scale=0.04, wobble=0.2, pitch=12, halo=3, clip=False),
)
# fmt: on


# Where lesions lie: centre, spread (mm), organ.
_SPOTS: tuple[tuple[Vector, Vector, int], ...] = (
    ((70, 5, 40), (35, 45, 40), 6),
    ((62, -40, -20), (16, 14, 35), 2),
    ((-60, -40, -5), (16, 14, 35), 3),
)


def _incidental(rng: np.random.Generator) -> list[_Shape]:
    """Small-bowel loops, which look like organs, and lesions, which keep the label of the organ around."""
    shapes = []
    for i in range(int(rng.integers(14, 20))):
        path = [rng.uniform((-72, 8, -125), (66, 66, -34) if i else (-30, 50, -10))]
        for step in rng.standard_normal((4, 3)):
            path.append(np.clip(path[-1] + 24 * step / np.linalg.norm(step), (-80, -5, -135), (75, 70, -20)))
        tube = _Tube(tuple((x, y, z, rng.uniform(8, 13)) for x, y, z in path))
        wall, inside, gas = rng.uniform((55, 10, 0), (115, 95, 8))
        loop = _Shape(f"loop {i}", 0, (wall, wall), (tube,), rim=(2.5, 0), content=(inside, 5), gas=gas)
        shapes.append(loop)
    for i in range(int(rng.integers(0, 4))):
        centre, spread, organ = _SPOTS[rng.integers(len(_SPOTS))]
        ball = _Ball(tuple(rng.uniform(-1, 1, 3) * spread + centre), tuple(rng.uniform(4, 13, 3)))
        hu = rng.uniform(5, 80)
        shapes.append(_Shape(f"lesion {i}", 0, (hu, hu), (ball,), within=organ, texture=2, clip=False))
    return shapes


class _Patient:
    """One varied anatomy: the frame of the case, its shapes, and everything drawn at random about them."""

    def __init__(self, case_id: str) -> None:
        rng = _rng(case_id, "habitus")
        self.phase, self.spine_phase, self.rib_phase = rng.uniform((0, 0, 0), (1, 34, 32))
        self.habitus = rng.random()  # 0 thin to 1 obese
        self.fat = 7 + 20 * self.habitus
        self.muscle = rng.uniform(9, 14)
        self.scale = np.array([0.92, 0.9, 0.97]) + np.array([0.1, 0.14, 0.04]) * self.habitus
        self.scale *= 1 + _normal(rng, 0.02, 3)
        self.shift = _normal(rng, 1.0, 3) * (4, 4, 6)
        self.warp = [_Noise(_rng(case_id, f"warp {axis}"), 64.0) for axis in "xyz"]
        self.clutter = _Noise(_rng(case_id, "clutter"), 9.0)
        shapes = [s for s in _SHAPES if s.name != "gallbladder" or case_id not in NO_GALLBLADDER]
        first_organ = next(i for i, s in enumerate(shapes) if s.label)
        extra = _incidental(_rng(case_id, "incidental"))
        shapes[first_organ:first_organ] = [s for s in extra if s.within is None]
        shapes += [s for s in extra if s.within is not None]
        self.shapes = [self._vary(case_id, shape) for shape in shapes]

    def _vary(self, case_id: str, shape: _Shape) -> tuple[_Shape, _Noise, float, float]:
        """The shape as it is in this case, its bumps, and the HU of its parenchyma and of its content."""
        rng = _rng(case_id, shape.name)
        shift, scale = _normal(rng, shape.jitter, 3), 1 + float(_normal(rng, shape.scale))
        parts = tuple(part.vary(rng, shift, scale, shape.jitter) for part in shape.parts)
        hu = shape.hu[0] + self.phase * (shape.hu[1] - shape.hu[0]) + float(_normal(rng, 6.0))
        inside = hu if shape.content is None else shape.content[0] + float(_normal(rng, shape.content[1]))
        varied = replace(shape, parts=parts, gas=shape.gas * float(rng.uniform(0.2, 1.8)))
        return varied, _Noise(rng, shape.pitch), hu, inside


class _Slab:
    """A box of sample points of one patient, on which its image (HU) and labels are painted."""

    def __init__(self, patient: _Patient, axes: list[NDArray[np.float64]]) -> None:
        self.patient, self.axes = patient, axes
        warp = [4.0 * noise.on(axes) for noise in patient.warp]
        self.margin = np.array([float(np.abs(w).max()) for w in warp])
        straight = [(a - s) / k for a, s, k in zip(axes, patient.shift, patient.scale, strict=True)]
        grid = np.meshgrid(*straight, indexing="ij", sparse=True)
        self.frame = [g.astype(np.float32) + w for g, w in zip(grid, warp, strict=True)]
        self.label = np.zeros(self.frame[0].shape, np.uint8)
        self._paint_trunk()
        for item in patient.shapes:
            self._paint(*item)

    def _paint_trunk(self) -> None:
        """Skin, fat, muscles, bones and lungs, and the signed distances that bound the organs."""
        patient, (x, y, z) = self.patient, self.frame
        side = np.abs(x)
        waist = 1 - 0.05 / (1 + ((z + 45) / 40) ** 2) - 0.04 * np.clip(z / 130, 0, 1)
        u, v = x / (118 * waist), (y - 8) / 78
        uu, vv = u * u, v * v
        norm = 0.5 * (np.sqrt(uu + vv) + np.sqrt(np.sqrt(uu * uu + vv * vv)))  # between an ellipse and a box
        wall = np.sqrt(x * x + (y - 8) ** 2) * (1 - 1 / np.maximum(norm, 1e-3))
        psoas = np.clip((30 - z) / 120, 0, 1)
        vertebra = np.sqrt((x / 22) ** 2 + ((y + 52) / 17) ** 2)
        erector = (np.sqrt(((side - 36) / 31) ** 2 + ((y + 84) / 19) ** 2) - 1) * 19
        width, height = 4 + 17 * psoas, 5 + 18 * psoas
        iliopsoas = (np.sqrt(((side - 23 - width) / width) ** 2 + ((y + 50) / height) ** 2) - 1) * width
        back = np.minimum(np.minimum((vertebra - 1) * 17, erector), iliopsoas)
        self.trunk = np.maximum(wall, -back)
        right = 97 - 0.011 * ((x - 58) ** 2 + (y - 15) ** 2)
        left = 86 - 0.011 * ((x + 62) ** 2 + (y - 12) ** 2)
        dome = np.maximum(np.maximum(right, left), 75 - 0.006 * (x * x + (y - 30) ** 2))
        self.limit = np.maximum(self.trunk, z - dome)

        muscle = np.minimum(wall - patient.muscle, erector)
        skin = muscle - patient.fat * (1 - 0.25 * v)  # less fat in front
        hu = np.where(skin < 0, np.float32(FAT), np.float32(AIR))
        hu[np.abs(skin + 1) < 1.2] = 20
        hu[(muscle < 0) & ((self.trunk > 0) | (self.limit > 0))] = MUSCLE
        hu[(np.abs(wall - 3.7) < 0.8) & (muscle < 0) & (z < 0) & (y > -40)] = FAT / 2  # between muscle layers
        chest = (self.trunk < -1) & (z > dome + 4)
        hu[chest] = np.where(((x + 5) / 34) ** 2 + ((y + 18) / 34) ** 2 < 1, FAT, LUNG)[chest]  # mediastinum
        self._paint_bones(hu, wall, vertebra)
        clutter = patient.clutter.on(self.axes)
        hu += np.where(hu < LUNG, 0, np.where(hu == LUNG, 35, 7)) * clutter
        hu[(self.limit < -4) & (clutter > 1.9)] = 70  # nodes and small vessels of the mesentery
        self.hu = hu

    def _paint_bones(self, hu: Array, wall: Array, vertebra: Array) -> None:
        x, y, z = self.frame
        level = np.mod(z + self.patient.spine_phase, 34)
        cortex = (vertebra > 0.87) | (np.abs(level - 20.5) > 11.5)
        hu[vertebra < 1] = np.where(level < 7, 95, np.where(cortex, 420, 190))[vertebra < 1]
        side, canal = np.abs(x), np.sqrt(x * x + (y + 78) ** 2)
        arch = (canal < 13) & (level > 9)
        arch |= (side < 4) & (np.abs(y + 96) < 10) & (np.abs(level - 17) < 9)  # spinous process
        arch |= (np.abs(side - 24) < 14) & (np.abs(y + 74) < 5) & (np.abs(level - 18) < 6)  # transverse
        hu[arch & (vertebra >= 1)] = 430
        hu[canal < 8.5] = 32
        rib = np.mod(z + 0.55 * y + 0.35 * side + self.patient.rib_phase, 32) - 7
        section = (rib / 6.5) ** 2 + ((wall - 5) / 4.2) ** 2
        cage = (section < 1) & (z > np.maximum(-22, 1.15 * y - 32)) & (y > -80)
        hu[cage] = np.where(y > 45, 110, np.where(section > 0.45, 480, 230))[cage]  # cartilage in front
        hu[(side < 16) & (np.abs(wall - 6) < 5) & (y > 0) & (z > 72)] = 260  # sternum

    def _box(self, parts: tuple[_Ball | _Tube, ...], reach: float) -> tuple[slice, ...] | None:
        """Index ranges that hold the parts and `reach` mm around them, None if they are outside the slab."""
        bounds = np.array([part.bounds() for part in parts])
        patient, pad = self.patient, self.margin + reach
        low = patient.shift + patient.scale * (bounds[:, 0].min(axis=0) - pad)
        high = patient.shift + patient.scale * (bounds[:, 1].max(axis=0) + pad)
        ends = zip(self.axes, low, high, strict=True)
        box = tuple(slice(*np.searchsorted(axis, (lo, hi))) for axis, lo, hi in ends)
        return box if all(s.start < s.stop for s in box) else None

    def _paint(self, shape: _Shape, noise: _Noise, base: float, inside: float) -> None:
        halo = shape.halo * (0.5 + self.patient.habitus)
        box = self._box(shape.parts, shape.blend + 4 * shape.wobble + halo)
        if box is None:
            return
        x, y, z = (c[box] for c in self.frame)
        hu, label = self.hu[box], self.label[box]
        depth = shape.parts[0].distance(x, y, z)
        for part in shape.parts[1:]:
            other = part.distance(x, y, z)
            bridge = np.maximum(shape.blend - np.abs(depth - other), 0) / max(shape.blend, 1e-6)
            depth = np.minimum(depth, other) - bridge * bridge * shape.blend / 4
        bumps = noise.on([a[s] for a, s in zip(self.axes, box, strict=True)])
        depth += shape.wobble * bumps
        if shape.clip:
            np.maximum(depth, self.limit[box] + 0.5, out=depth)
        mask = depth < 0
        if shape.within is not None:
            mask &= label == shape.within
        else:
            around = (depth < halo) & ~mask & (self.trunk[box] < -1)
            hu[around], label[around] = FAT, 0
            label[mask] = shape.label
        value = np.float32(base) + np.where(depth > -shape.rim[0], np.float32(shape.rim[1]), np.float32(0))
        if shape.content is not None:
            value = np.where(depth < -shape.rim[0], np.float32(inside), value)
        value = value + shape.texture * bumps
        if shape.content is not None and shape.gas > 0:
            front = max(part.bounds()[1][1] for part in shape.parts)
            value[(depth < -shape.rim[0]) & (y > front - shape.rim[0] - shape.gas)] = GAS
        hu[mask] = value[mask]


def _vote(label: NDArray[np.uint8], steps: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label with the largest share of each block of samples; ties go to the later, smaller organ."""
    blocks = _blocks(label, steps)
    best = np.zeros(blocks.shape[::2], np.uint8)
    most = (blocks == 0).sum(axis=(1, 3, 5), dtype=np.uint16)
    for organ in (shape.label for shape in _SHAPES if shape.label):
        share = (blocks == organ).sum(axis=(1, 3, 5), dtype=np.uint16)
        won = (share > 0) & (share >= most)
        best[won], most[won] = organ, share[won]
    return best


def _blocks(values: NDArray, steps: tuple[int, ...]) -> NDArray:
    shape = [n for size, step in zip(values.shape, steps, strict=True) for n in (size // step, step)]
    return values.reshape(shape)


def generate_case(
    case_id: str, options: PhantomOptions
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make one case, the same at every call and the same patient on every grid.

    Args:
        case_id: one of `CASE_IDS`.
        options: the sampling grid.

    Returns:
        The image in Hounsfield units, int16 (X, Y, Z); organ ids 0 to 13, uint8 (X, Y, Z); the affine from
        voxel indices to RAS+ mm, float64 (4, 4). About half of the cases are stored LAS: their x index
        runs to the patient's left.

    Raises:
        ValueError: if the case id is not one of `CASE_IDS`.
    """
    if case_id not in CASE_IDS:
        raise ValueError(f"unknown phantom case {case_id!r}: expected one of {CASE_IDS[0]} to {CASE_IDS[-1]}")
    from scipy import ndimage

    patient = _Patient(case_id)
    spacing = np.divide(options.extent_mm, options.size)
    steps = tuple(int(s) for s in np.ceil(spacing / SAMPLE_MM))
    along = zip(options.size, steps, spacing, strict=True)
    axes = [((np.arange(n * k) + 0.5) / k - n / 2) * mm for n, k, mm in along]
    image, label = np.empty(options.size, np.float32), np.empty(options.size, np.uint8)
    thick = max(1, SLAB_POINTS // (axes[0].size * axes[1].size * steps[2]))
    for start in range(0, options.size[2], thick):
        stop = min(start + thick, options.size[2])
        slab = _Slab(patient, [axes[0], axes[1], axes[2][start * steps[2] : stop * steps[2]]])
        image[..., start:stop] = _blocks(slab.hu, steps).mean(axis=(1, 3, 5))
        label[..., start:stop] = _vote(slab.label, steps)

    image = ndimage.gaussian_filter(image, np.maximum(PSF_MM / spacing, 0.3), output=np.float32)
    noise = _rng(case_id, "noise").standard_normal(options.size, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, 0.55, output=np.float32)
    # Averaging over larger voxels lowers the noise, slower than 1/sqrt(volume) as it is correlated.
    noise *= (20 * (3.8 / np.prod(spacing)) ** 0.2) / noise.std()
    stored = np.clip(np.rint(image + noise), -1024, 3071).astype(np.int16)

    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = (spacing - options.extent_mm) / 2
    if _rng(case_id, "orientation").random() < 0.5:
        stored, label = np.ascontiguousarray(stored[::-1]), np.ascontiguousarray(label[::-1])
        affine[0] *= -1  # the grid is centred on x = 0
    return stored, label, affine


def _write_nifti(path: Path, data: NDArray, affine: NDArray[np.float64]) -> None:
    import nibabel as nib

    nifti = nib.Nifti1Image(data, affine)
    nifti.set_sform(affine, code=1)
    nifti.set_qform(affine, code=1)
    nifti.header.set_xyzt_units("mm")
    with atomic_path(path) as aside:
        aside.write_bytes(gzip.compress(nifti.to_bytes(), compresslevel=6, mtime=0))


def write_official_layout(
    root: Path,
    options: PhantomOptions,
    case_ids: Iterable[str] = CASE_IDS,
    on_case: Callable[[str], None] | None = None,
) -> None:
    """Write cases as ``root/RawData/Training/{img/img,label/label}NNNN.nii.gz``, each file appearing whole.

    Args:
        root: the folder that holds ``RawData``; made if missing. Files already there are replaced.
        options: the sampling grid.
        case_ids: the cases to write, some of `CASE_IDS`.
        on_case: called with each case id once its two files are written.

    Raises:
        ValueError: if a case id is not one of `CASE_IDS`.
    """
    training = Path(root) / "RawData" / "Training"
    for folder in ("img", "label"):
        (training / folder).mkdir(parents=True, exist_ok=True)
    for case_id in case_ids:
        image, label, affine = generate_case(case_id, options)
        _write_nifti(training / "img" / f"img{case_id}.nii.gz", image, affine)
        _write_nifti(training / "label" / f"label{case_id}.nii.gz", label, affine)
        if on_case is not None:
            on_case(case_id)


@register("dataset", "phantom")
class Phantom(Synapse):
    """A computed stand-in for Synapse with its ids, labels and splits. Not medical data."""

    name = "phantom"
    title = "Phantom (synthetic abdominal CT in the Synapse layout)"
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {"native": NATIVE_PREPROCESSING, "ga": GA_PREPROCESSING}
    forms = Synapse.forms[:1]  # what is computed has the official layout
    splits_from = "synapse"
    default_grid = "quick"
    source_hint = "it is computed; no source is needed"
    access = ()
    cite = ""
    synapse_id = None
    generated_ids = CASE_IDS
    Options = PhantomOptions

    def generate(self, folder: Path, case_id: str) -> None:
        assert isinstance(self.options, PhantomOptions)
        write_official_layout(folder, self.options, [case_id])
