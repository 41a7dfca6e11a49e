"""Every loss once more, slowly: loops over voxels and classes, written from the equations of the papers and sheets.

Nothing here shares code with the package. A batch is a list of voxels: logits x (N, C), labels y (N,), and optionally a
mask m, voxel weights v (N,) and class weights w (C,). All in float64, differentiable.
"""

from __future__ import annotations

import math

import torch


def voxels(logits, *maps):
    """(B, C, *S) logits and (B, *S) maps as (N, C) and (N,)."""
    B, C = logits.shape[:2]
    x = logits.reshape(B, C, -1).permute(0, 2, 1).reshape(-1, C)
    return x, *(None if part is None else part.reshape(-1) for part in maps)


def softmax(row):
    exponentials = [(value - row.detach().max()).exp() for value in row]
    return [value / sum(exponentials) for value in exponentials]


def nll(row, label):
    return -softmax(row)[label].log()


def ones(count):
    return torch.ones(count, dtype=torch.float64)


def mean(values, y, m, v, w):
    """The reductions of `sslbench` for a list of voxel values."""
    N = len(values)
    inside = ones(N) if m is None else m.double()
    top, bottom = 0.0, 0.0
    for i in range(N):
        class_weight = 1.0 if w is None else w[y[i]]
        top = top + inside[i] * (1.0 if v is None else v[i]) * class_weight * values[i]
        bottom += inside[i] * (class_weight if v is None else 1.0)
    return top / bottom if bottom > 0 else 0.0 * sum(values)


def cross_entropy(x, y, m=None, v=None, w=None):
    return mean([nll(x[i], y[i]) for i in range(len(y))], y, m, v, w)


def focal(x, y, m=None, v=None, w=None, gamma=2.0):
    values = []
    for i in range(len(y)):
        p = softmax(x[i])[y[i]]
        values.append((1 - p) ** gamma * -p.log())
    return mean(values, y, m, v, w)


def weights_inside(N, m, v):
    return (ones(N) if m is None else m.double()) * (ones(N) if v is None else v)


def counts(x, y, u, squared):
    """Per class Σ u·p·y, Σ u·p^(2 or 1), Σ u·y."""
    N, C = x.shape
    P = [softmax(row) for row in x]
    found = []
    for c in range(C):
        inter, pred, ref = 0.0, 0.0, 0.0
        for i in range(N):
            inter = inter + u[i] * P[i][c] * float(y[i] == c)
            pred = pred + u[i] * (P[i][c] ** 2 if squared else P[i][c])
            ref = ref + u[i] * float(y[i] == c)
        found.append((inter, pred, ref))
    return found


def dice(x, y, m=None, v=None, w=None, squared=True, s=1e-5):
    C = x.shape[1]
    total = 0.0
    for c, (inter, pred, ref) in enumerate(counts(x, y, weights_inside(len(y), m, v), squared)):
        total = total + (1.0 if w is None else w[c]) * (1 - (2 * inter + s) / (pred + ref + s))
    return total / C


def foreground_dice(x, y, m=None, v=None, w=None, s=1.0):
    C = x.shape[1]
    total = 0.0
    for c, (inter, pred, ref) in enumerate(counts(x, y, weights_inside(len(y), m, v), squared=False)):
        if c > 0:
            score = (2 * inter + s) / (2 * inter + (pred - inter) + (ref - inter) + s + 1e-8)
            total = total - (1.0 if w is None else w[c]) * score
    return total / (C - 1)


def tversky(x, y, m=None, v=None, w=None, alpha=0.3, beta=0.7, gamma=1.0, s=1e-5):
    C = x.shape[1]
    total = 0.0
    for c, (tp, pred, ref) in enumerate(counts(x, y, weights_inside(len(y), m, v), squared=False)):
        index = (tp + s) / (tp + alpha * (pred - tp) + beta * (ref - tp) + s)
        total = total + (1.0 if w is None else w[c]) * (1 - index) ** (1 / gamma)
    return total / C


def generalized_dice(x, y, m=None, v=None, w=None, s=1e-5):
    found = counts(x, y, weights_inside(len(y), m, v), squared=False)
    sizes = [float(ref) for _, _, ref in found if float(ref) > 0]
    top, bottom = 0.0, 0.0
    for c, (inter, pred, ref) in enumerate(found):
        weight = (min(sizes) / float(ref)) ** 2 if float(ref) > 0 else 1.0
        weight = weight * (1.0 if w is None else w[c])
        top, bottom = top + weight * inter, bottom + weight * (pred + ref)
    return 1 - (2 * top + s) / (bottom + s)


def gadice(x, y, m=None, v=None, w=None, absent="p", s=1e-10):
    """GA eq. 8, with the sum over voxels that the code has."""
    C = x.shape[1]
    u = weights_inside(len(y), m, v)
    N = sum(float(weight) > 0 for weight in u)
    P = [softmax(row) for row in x]
    total = 0.0
    for c, (inter, pred, ref) in enumerate(counts(x, y, u, squared=True)):
        if float(ref) > 0 or absent == "none":
            term = 1 - (2 * inter + s) / (pred + ref + s)
        else:
            term = 0.0
            for i in range(len(y)):
                p = P[i][c]
                pull = {"p": p.detach(), "p2": p.detach() ** 2, "inv": 1 / N}[absent]
                term = term + u[i] * pull * p / N
        total = total + (1.0 if w is None else w[c]) * term
    return total / C


def gace(x, y, m=None, v=None, w=None, k=10.0, gamma=0.5):
    """GA eq. 11: the hardest k % of the voxels that exist, their classes damped by how often they are mined."""
    C = x.shape[1]
    u = weights_inside(len(y), m, v)
    values = {}
    for i in range(len(y)):
        if float(u[i]) > 0:
            values[i] = nll(x[i], y[i]) * (1.0 if v is None else v[i]) * (1.0 if w is None else w[y[i]])
    number = max(1, math.floor(len(values) * k / 100))
    mined = sorted(values, key=lambda i: -float(values[i].detach()))[:number]
    total = 0.0
    for c in range(C):
        own = [values[i] for i in mined if y[i] == c]
        total = total + sum(own) / (number**gamma * (len(own) + 1e-10) ** (1 - gamma) + 1e-10)
    return total


# --------------------------------------------------------------------------------------------------------- MetaSSL


def phi(u, shape="gauss", beta=3.0):
    return {
        "gauss": math.exp(-(u**beta)),
        "linear": max(0.0, 1 - u / 2),
        "reciprocal": 1 / (1 + u),
        "cosine": math.cos(u) / 2 + 0.5,
    }[shape]


def certainty(p, measure="confidence"):
    C = len(p)
    values = [float(value) for value in p]
    variance = sum((value - 1 / C) ** 2 for value in values) / C
    return {
        "confidence": max(values),
        "mad": sum(abs(value - 1 / C) for value in values) / C,
        "variance": variance,
        "std": math.sqrt(variance),
    }[measure]


def adaptive(gamma, P, alpha=0.99, on="new", absent="keep", measure="confidence"):
    """Eq. 9 and 10 on the reference's probabilities P (N, C); what γ becomes."""
    moved = []
    for c, old in enumerate(gamma):
        own = [certainty(p, measure) for p in P if int(p.argmax()) == c]
        if absent == "keep" and not own:
            moved.append(float(old))
            continue
        O = sum(own) / (len(own) + (1 if absent == "decay" else 0))  # noqa: E741  the paper's letter
        moved.append(min(1.0, alpha * O + (1 - alpha) * old if on == "new" else alpha * old + (1 - alpha) * O))
    return moved


def regions(x, y, P, gamma, stream, partition="quad", measure="confidence"):
    """0 UC, 1 US, 2 DC, 3 DS; y is the pseudo-label or the label."""
    found = []
    for i in range(len(x)):
        reference = int(P[i].argmax())
        named = reference if stream == "label" else int(x[i].argmax())
        discrepant, suspicious = named != int(y[i]), not certainty(P[i], measure) > gamma[reference]
        found.append(
            {"quad": 2 * discrepant + suspicious, "confidence": suspicious, "consistency": discrepant}[partition]
        )
    return [int(region) for region in found]


def region_weight(region, stream, delta_u=0.6, delta_l=0.3, shape="gauss", beta=3.0):
    if stream == "pseudo":
        return phi(region * delta_u, shape, beta)
    return phi({0: 0, 1: 1, 2: 3, 3: 2}[region] * delta_l, shape, beta)


def quad_ce(x, y, found, stream, m=None, v=None, w=None, **weights):
    """Eq. 5 and 7."""
    inside = [region_weight(region, stream, **weights) for region in found]
    inside = torch.tensor(inside, dtype=torch.float64) * (ones(len(y)) if m is None else m.double())
    return cross_entropy(x, y, inside, v, w)


def quad_dice(x, y, found, stream, m=None, v=None, w=None, s=1e-5, **weights):
    """Eq. 8."""
    inside = [region_weight(region, stream, **weights) for region in found]
    inside = torch.tensor(inside, dtype=torch.float64) * (ones(len(y)) if m is None else m.double())
    return dice(x, y, inside, v, w, squared=False, s=s)


def region_means(x, y, found, foreground, stream, scale, m=None, v=None, w=None, delta=0.6, bug=False):
    """The released reduction: a mean over each region + 1 voxel, UC apart in background and foreground."""
    total = 0.0
    for name, factor in (("bg", 1.0), ("fg", 1.0), (1, phi(delta)), (2, phi(2 * delta)), (3, phi(3 * delta))):
        top, bottom = 0.0, 1.0
        for i in range(len(y)):
            part = found[i] if found[i] > 0 else ("fg" if foreground[i] and not bug else "bg")
            if found[i] == 0 and bug and foreground[i]:
                continue
            if part == name or (bug and name == "fg" and part == "bg"):
                weight = 1.0 if m is None else float(m[i])
                bottom += weight
                extra = (1.0 if v is None else v[i]) * (1.0 if w is None else w[y[i]])
                top = top + weight * extra * nll(x[i], y[i])
        total = total + scale * factor * top / bottom
    return total
