"""Intervals and tests for differences between rows: seeds × patients, crossed.

Every seed's network meets the same test patients, so that seeds and patients are two random effects that cross: the
multi-reader multi-case design of radiology, with seeds as readers (Dorfman, Berbaum & Metz 1992; Obuchowski & Rockette
1995; Hillis 2007). Averaging seeds away and testing over patients, the field's habit, calls 31 to 60 of 100 true ties
significant with three seeds and 40 patients.

Arrays only: scores and differences are (S, U), seeds × units, without gaps; a unit is a patient, a slide or a scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

CONFIDENCE = 0.95
LEVEL = 0.05  # the share of intervals and tests that find a difference where there is none
POWER = 0.80
_EXACT_UNITS = 16  # 2^16 patterns of signs are quickly gone through
_FLIPS = 9999
_DRAWS = 2000

Floats = NDArray[np.float64]
# From which classes a seed has values (S, C) to what each weighs (S, C).
ClassWeights = Callable[[NDArray[np.bool_]], Floats]


# ------------------------------------------------------------------------------------------------------- unit scores


def average_of(classes: Sequence[int] | None = None) -> ClassWeights:
    """Weights of the mean over classes (by index; None: all), over those that a seed has any value of."""

    def weights(defined: NDArray[np.bool_]) -> Floats:
        chosen = np.zeros(defined.shape[1], dtype=bool)
        chosen[slice(None) if classes is None else list(classes)] = True
        entered = (defined & chosen).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(entered / entered.sum(axis=1, keepdims=True))

    return weights


def slope_on(x: ArrayLike) -> ClassWeights:
    """Weights of the least-squares slope of class means on `x` (C,), such as the log10 of the classes' sizes.

    w_c = (x_c - x̄) / Σ (x - x̄)², over the classes that a seed has any value of.
    """
    place = np.asarray(x, dtype=np.float64)

    def weights(defined: NDArray[np.bool_]) -> Floats:
        with np.errstate(invalid="ignore"):
            centred = np.where(defined, place - (defined @ place / defined.sum(axis=1))[:, None], 0.0)
            return np.asarray(centred / np.square(centred).sum(axis=1, keepdims=True))

    return weights


def unit_scores(values: ArrayLike, units: ArrayLike, weights: ClassWeights) -> Floats:
    """Score of each unit whose mean over units is the number that the table prints for that seed.

    y_su = Σ_c w_c · [v̄_sc + (U / n_sc) · Σ_{i in u} (v_sic - v̄_sc)], v̄_sc the mean over the n_sc cases that have a
    value. A mean over classes within each unit would be another number wherever a case lacks a class.

    Args:
        values: (S, I, C), seeds × cases × classes; NaN where the protocol leaves a value out.
        units: (I,) labels of the cases' patients.
        weights: of the classes: `average_of`, `slope_on`.

    Returns:
        (S, U), units in the order of their labels; a row of NaN for a seed without any value.
    """
    return ClassScores.of(values, units).under(weights)


@dataclass(frozen=True, eq=False)
class ClassScores:
    """What `unit_scores` weighs: the score of each unit by class.

    Attributes:
        scores: (S, U, C); NaN for a class without any value in a seed.
        counts: (S, C), the cases that have a value.
    """

    scores: Floats
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: ArrayLike, units: ArrayLike) -> ClassScores:
        """Of values (S, I, C) of cases that belong to units (I,)."""
        found = np.asarray(values, dtype=np.float64)
        labels, of_case = np.unique(np.asarray(units), return_inverse=True)
        known = ~np.isnan(found)
        counts = known.sum(axis=1)
        filled = np.where(known, found, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = filled.sum(axis=1) / counts
            deviations = np.where(known, found - means[:, None], 0.0)
            member = (of_case[:, None] == np.arange(len(labels))).astype(np.float64)  # (I, U)
            sums = np.einsum("sic,iu->suc", deviations, member)
            return cls(means[:, None] + sums * (len(labels) / counts)[:, None], counts)

    def under(self, weights: ClassWeights) -> Floats:
        """The scores (S, U) under weights of the classes."""
        share = weights(self.counts > 0)
        total: Floats = np.where(share[:, None] != 0, self.scores * share[:, None], 0.0).sum(axis=2)
        measured = self.counts.max(axis=1, initial=0) > 0
        return np.where(measured[:, None], total, np.nan)


# ---------------------------------------------------------------------------------------------------------- interval


@dataclass(frozen=True)
class Components:
    """Standard deviations that a difference is made of, in its own unit: from one seed's training to the next, from one
    patient to the next, and the rest (their interaction)."""

    seed: float
    unit: float
    rest: float

    def design(self, seeds: float, units: int) -> tuple[float, float]:
        """Standard error of the mean difference, and its degrees of freedom (Satterthwaite), in another design.

        Args:
            seeds: at least 2; `math.inf` for as many as one likes.
            units: at least 2.
        """
        of_seed, of_unit, rest = self.seed**2, self.unit**2, self.rest**2
        if math.isinf(seeds):
            return math.sqrt(of_unit / units), units - 1.0
        squares = (units * of_seed + rest, seeds * of_unit + rest, rest)
        total = squares[0] + squares[1] - squares[2]
        return math.sqrt(total / (seeds * units)), _satterthwaite(total, squares, (seeds - 1, units - 1))


@dataclass(frozen=True)
class TwoWay:
    """A mean difference with its interval.

    Attributes:
        mean: over seeds and units.
        low, high: ends of the confidence interval.
        p: two-sided, against a difference of 0; below 1 - confidence exactly where the interval leaves 0 out.
        df: degrees of freedom.
        se: standard error of the mean.
        squares: mean squares of seeds, of units, and of the rest (NaN with one seed).
        seeds, units: S and U. With one seed the interval is over units alone: these networks, new patients.
    """

    mean: float
    low: float
    high: float
    p: float
    df: float
    se: float
    squares: tuple[float, float, float]
    seeds: int
    units: int

    @property
    def components(self) -> Components:
        """What the mean squares say of the spread; a component cannot be below 0. NaN with one seed."""
        of_seed, of_unit, rest = self.squares
        return Components(
            float(np.sqrt(np.maximum(0.0, (of_seed - rest) / self.units))),
            float(np.sqrt(np.maximum(0.0, (of_unit - rest) / self.seeds))),
            math.sqrt(rest),
        )

    @property
    def detectable(self) -> float:
        """Difference that this design finds with 80 % power."""
        return detectable(self.se, self.df)


def two_way(d: ArrayLike, confidence: float = CONFIDENCE) -> TwoWay:
    """Confidence interval of a mean difference over seeds and units, both random and crossed.

    V = max(MS_s + MS_u - MS_e, MS_s, MS_u, MS_e), SE = sqrt(V / (S·U)), t with Satterthwaite's degrees of freedom, or
    those of the largest mean square, never below min(S, U) - 1. With one seed: one-way over units.

    Args:
        d: (S, U) differences of the same seed and unit, positive where the first row is better.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: not (S, U) with U >= 2, or a value that is not finite.
    """
    values = np.asarray(d, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"differences must be seeds × units with at least two units, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite: leave out seeds and units that one of the rows lacks")
    seeds, units = values.shape
    mean = float(values.mean())
    of_seed, of_unit = values.mean(axis=1), values.mean(axis=0)
    noise = (1e-13 * float(np.abs(values).max())) ** 2 * seeds * units  # what rounding alone leaves

    def square(sum_of_squares: float, freedom: int) -> float:
        return 0.0 if sum_of_squares <= noise else sum_of_squares / freedom

    ms_unit = square(seeds * float(np.square(of_unit - mean).sum()), units - 1)
    if seeds == 1:
        squares = (math.nan, ms_unit, math.nan)
        spread, df = ms_unit, units - 1.0
    else:
        rest = values - of_seed[:, None] - of_unit + mean
        ms_seed = square(units * float(np.square(of_seed - mean).sum()), seeds - 1)
        ms_rest = square(float(np.square(rest).sum()), (seeds - 1) * (units - 1))
        squares = (ms_seed, ms_unit, ms_rest)
        spread, df = _spread(squares, seeds, units)
    se = math.sqrt(spread / (seeds * units))
    if se == 0:
        return TwoWay(mean, mean, mean, float(mean == 0), df, 0.0, squares, seeds, units)
    half = t_edge(df, confidence) * se
    p = 2 * float(special.stdtr(df, -abs(mean) / se))
    return TwoWay(mean, mean - half, mean + half, p, df, se, squares, seeds, units)


def _spread(squares: tuple[float, float, float], seeds: int, units: int) -> tuple[float, float]:
    """Variance V of a single difference, and its degrees of freedom."""
    freedom = (seeds - 1, units - 1, (seeds - 1) * (units - 1))
    total = squares[0] + squares[1] - squares[2]
    floor = min(seeds, units) - 1
    spread = max(total, *squares)
    if spread == 0:
        return 0.0, float(floor)
    found = [
        df
        for value, df in [(total, _satterthwaite(total, squares, freedom[:2])), *zip(squares, freedom, strict=True)]
        if math.isclose(value, spread, rel_tol=1e-12)
    ]
    return spread, float(max(min(found), floor))


def _satterthwaite(total: float, squares: tuple[float, float, float], freedom: tuple[float, float]) -> float:
    """Degrees of freedom of MS_s + MS_u - MS_e."""
    of_seed, of_unit = freedom
    below = squares[0] ** 2 / of_seed + squares[1] ** 2 / of_unit + squares[2] ** 2 / (of_seed * of_unit)
    return total**2 / below if below > 0 else min(freedom)


def t_edge(df: float, confidence: float = CONFIDENCE) -> float:
    """Half-width of a confidence interval in standard errors: Student's t."""
    return float(special.stdtrit(df, (1 + confidence) / 2))


@cache
def _nodes() -> tuple[Floats, Floats]:
    """Points in (-1, 1) and their weights (Gauss-Legendre)."""
    return np.polynomial.legendre.leggauss(400)


def detectable(se: float, df: float, power: float = POWER, confidence: float = CONFIDENCE) -> float:
    """Difference that a design with this standard error finds with the given power, under the noncentral t."""
    return se * _shift(df, power, confidence) if se else 0.0


@lru_cache(maxsize=4096)
def _shift(df: float, power: float, confidence: float) -> float:
    """The same in standard errors."""
    edge = t_edge(df, confidence)
    # The noncentral t as a normal over the spread of its denominator: scipy's own is NaN with few degrees of freedom.
    at, weight = _nodes()
    edges = edge * np.sqrt(2 * special.gammaincinv(df / 2, (at + 1) / 2) / df)
    weight = weight / 2

    def surplus(shift: float) -> float:
        return float(weight @ (special.ndtr(shift - edges) + special.ndtr(-edges - shift))) - power

    def slope(shift: float) -> float:
        normals = np.exp(-0.5 * np.square(shift - edges)) - np.exp(-0.5 * np.square(shift + edges))
        return float(weight @ normals) / math.sqrt(2 * math.pi)

    # Newton's steps between bounds. scipy's own search costs a report more to import than all else of it.
    lower, upper, shift = 0.0, math.inf, edge + float(special.ndtri(power))
    for _ in range(200):
        over = surplus(shift)
        lower, upper = (shift, upper) if over < 0 else (lower, shift)
        rise = slope(shift)
        nearer = shift - over / rise if rise > 0 else math.inf
        if not lower <= nearer <= upper:
            nearer = 2 * lower + 1 if math.isinf(upper) else (lower + upper) / 2
        if abs(nearer - shift) < 1e-11 * edge:
            return nearer
        shift = nearer
    return shift


# -------------------------------------------------------------------------------------------- families, other answers


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for a family of tests (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(
        [min(1.0, (len(p) - rank) * p[place]) for rank, place in enumerate(order)] or [0.0]
    )
    found = [math.nan] * len(p)
    for rank, place in enumerate(order):
        found[place] = float(adjusted[rank])
    return found


@dataclass(frozen=True)
class SignFlip:
    """A permutation test given these trainings.

    Attributes:
        p: two-sided.
        floor: least value that it can take with so few units.
    """

    p: float
    floor: float


@cache
def _patterns(number: int) -> Floats:
    """All patterns of so many signs, (2^number, number)."""
    bits = np.arange(2**number)[:, None] >> np.arange(number) & 1
    return np.asarray(1.0 - 2.0 * bits)


def sign_flip(d: ArrayLike) -> SignFlip:
    """Test of the mean over units, seeds averaged, by flipping units' signs: what holds of these networks alone.

    Exact up to 16 units, else 9 999 draws with p = (b + 1) / (B + 1) (Phipson & Smyth 2010).

    Args:
        d: (S, U) differences.
    """
    means = np.asarray(d, dtype=np.float64).mean(axis=0)
    units = len(means)
    observed = abs(means.sum()) - 1e-12 * np.abs(means).sum()  # the last bits of a sum depend on its order
    if units <= _EXACT_UNITS:
        signs = _patterns(units - 1)  # the first stays: symmetry
        reached = np.abs(means[0] + signs @ means[1:]) >= observed
        return SignFlip(float(reached.mean()), 2.0 ** (1 - units))
    signs = np.random.default_rng(0).choice((1.0, -1.0), size=(_FLIPS, units))
    reached = np.abs(signs @ means) >= observed
    return SignFlip((float(reached.sum()) + 1) / (_FLIPS + 1), 1 / (_FLIPS + 1))


def superiority(first: ArrayLike, second: ArrayLike) -> float:
    """Probability that the first row is better on a unit, over all pairs of its seeds; ties count half.

    Args:
        first, second: (S, U) and (T, U) unit scores of the same units, larger is better.
    """
    ours, theirs = np.asarray(first, dtype=np.float64)[:, None], np.asarray(second, dtype=np.float64)[None]
    return float(np.mean((ours > theirs) + 0.5 * (ours == theirs)))


@dataclass(frozen=True)
class GapShare:
    """Share of the gap between supervised training at a budget and with all labels, with its interval (Fieller 1954).

    Attributes:
        share: above 1 where the row passes the upper end.
        low, high: ends of the interval.
        g: how badly the gap itself is known; below 1.
    """

    share: float
    low: float
    high: float
    g: float


def share_of_gap(row: ArrayLike, lower: ArrayLike, upper: ArrayLike, confidence: float = CONFIDENCE) -> GapShare | str:
    """(row - lower) / (upper - lower) with Fieller's interval, or in words why there is none.

    Args:
        row, lower, upper: (S, U) unit scores in points of the same seeds and units: the row, supervised training at
            its budget, and with all labels.
        confidence: of the interval.
    """
    ours, base, full = (np.asarray(scores, dtype=np.float64) for scores in (row, lower, upper))
    gain, gap = two_way(ours - base), two_way(full - base)
    if gap.mean < 1:
        return "the gap is below 1 point"
    t = t_edge(min(gain.df, gap.df), confidence)
    of_gain, of_gap = gain.se**2, gap.se**2
    together = (of_gain + of_gap - two_way(ours - full).se ** 2) / 2
    if abs(together) > math.sqrt(of_gain * of_gap) + 1e-9 * max(of_gain, of_gap):
        return "the three variances contradict each other: too few seeds"
    share = gain.mean / gap.mean
    g = t**2 * of_gap / gap.mean**2
    if g >= 1:
        return "the gap itself is not told apart from 0"
    slant = together / of_gap if of_gap else 0.0
    inner = of_gain - 2 * share * together + share**2 * of_gap - g * (of_gain - slant * together)
    half = t / gap.mean * math.sqrt(max(0.0, inner))
    return GapShare(share, (share - g * slant - half) / (1 - g), (share - g * slant + half) / (1 - g), g)


@dataclass(frozen=True)
class RankStability:
    """How a row's rank moves when seeds and units are drawn again: stability, not a confidence interval.

    Attributes:
        low, high: 2.5 % and 97.5 % quantiles of its rank, 1 is best.
        first: share of the draws in which it is first; ties share.
    """

    low: int
    high: int
    first: float


def rank_stability(scores: ArrayLike, draws: int = _DRAWS) -> list[RankStability]:
    """Ranks of rows under redrawn seeds and units, the same draw for all rows.

    Args:
        scores: (R, S, U) unit scores of the rows, larger is better.
        draws: how many.
    """
    values = np.asarray(scores, dtype=np.float64)
    _, seeds, units = values.shape
    generator = np.random.default_rng(0)
    of_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    of_unit = generator.multinomial(units, np.full(units, 1 / units), size=draws) / units
    means = np.einsum("rsu,bs,bu->rb", values, of_seed, of_unit, optimize=True)
    ranks = _ranks(means)
    ahead = ranks == 1
    first = (ahead / ahead.sum(axis=0)).mean(axis=1)
    low, high = np.quantile(ranks, (0.025, 0.975), axis=1, method="inverted_cdf")
    return [RankStability(int(a), int(b), float(c)) for a, b, c in zip(low, high, first, strict=True)]


def _ranks(scores: Floats) -> NDArray[np.int64]:
    """Ranks in each column, 1 for the largest, ties share the better; scipy.stats would take longer to load."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=0)
    place = np.arange(1, len(scores) + 1)[:, None]
    first = np.ones(scores.shape, dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    ranks = np.empty(scores.shape, dtype=np.int64)
    np.put_along_axis(ranks, order, np.maximum.accumulate(np.where(first, place, 0), axis=0), axis=0)
    return ranks
