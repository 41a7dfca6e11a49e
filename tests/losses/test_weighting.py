"""Weightings: the sheets' worked numbers, zero counts, state, and what they do to a loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sslbench.core import registry
from sslbench.losses import Weighted
from sslbench.losses.weighting import (
    CLD,
    Adsh,
    ConfidenceBank,
    CReSTWeights,
    DiffDW,
    DistDW,
    SimiSWeights,
    adsh_thresholds,
    batch_dice,
    cld_class_weights,
    cld_sampling_rate,
)
from tests.helpers.dispatch import Calls
from tests.helpers.losses import a_step, make_loss, statistics

COUNTS = torch.tensor([900, 60, 30, 10])
NAMES = ["adsh", "cld", "crest", "diffdw", "distdw", "simis"]


def near(values, expected, tolerance=1e-5):
    assert values.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def make(name, num_classes=4, **options):
    return registry.component("weighting", name)(num_classes, **options)


def sure_logits(classes, num_classes=4):
    """Logits (1, C, N) that predict the classes, p = 0.999…"""
    return 20 * torch.nn.functional.one_hot(torch.tensor(classes), num_classes).T.float().unsqueeze(0)


def stepped(weighting, logits, labels):
    """One step as `Weighted` makes it."""
    weighting.weights = weighting.update(weighting.observe(a_step(), logits, labels))
    return weighting.weights


# ------------------------------------------------------------------------------------------------- worked numbers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cld", [1, 2.466212, 3.107233, 4.481405]),
        ("crest", [0.223144, 0.321830, 0.405480, 1]),
        ("simis", [3.96, 3.9936, 3.9948, 3.9956]),
        ("distdw", [0, 2.407257, 3.023414, 4]),
        ("diffdw", [4, 4, 4, 4]),
        ("adsh", [1, 1, 1, 1]),
    ],
)
def test_weights_begin_from_the_labeled_voxels(name, expected):
    near(make(name).init(COUNTS), expected)


def test_weights_of_counts():
    near(SimiSWeights(4).of(COUNTS.float()), [0, 3.36, 3.48, 3.56])
    near(DistDW(4).of(torch.tensor([900.0, 60, 30, 0])) / 4, [0, 0.107364, 0.134845, 1])


def test_distdw_follows_the_pseudo_labels():
    weighting = DistDW(4)
    weighting.init(COUNTS)
    near(weighting.update(torch.tensor([950, 30, 20, 0])), [0, 2.388653, 2.999290, 4])
    near(weighting.weights, [0, 2.388653, 2.999290, 4])


def test_crest_reverses_ranks_and_keeps_the_order_of_ties():
    shares = [(n / 60) ** (1 / 3) for n in (10, 60, 30)]
    near(CReSTWeights(3).of(torch.tensor([10.0, 60, 30])), [shares[1], shares[0], shares[2]])
    # Classes 1 and 3 tie for the last two places: the first of them comes first, and gets the second largest weight.
    none = (1e-8 / 90) ** (1 / 3)
    near(CReSTWeights(4).of(torch.tensor([90.0, 0, 60, 0])), [none, (60 / 90) ** (1 / 3), none, 1])


TRACE = [  # target 6 × class 0, 4 × class 1, 2 × class 2; predictions, Dice and weights step by step
    ([0] * 12, [0.666667, 2.5e-9, 5e-9, 0.5], [0.131319, 4, 3.98908, 0.140016]),
    ([0] * 6 + [1] * 2 + [0] * 4, [0.75, 0.666667, 5e-9, 0.5], [0.130219, 0.130269, 4, 0.139576]),
    ([0] * 6 + [1] + [0] * 4 + [2], [0.75, 0.4, 0.666667, 0.5], [0.32622, 4, 0.331439, 0.351456]),
    ([0] * 6 + [1] * 3 + [0] + [2] * 2, [0.923077, 0.857143, 1, 0.5], [0.328709, 4, 0.332892, 0.357502]),
]


def test_diffdw_trace():
    target = torch.tensor([[0] * 6 + [1] * 4 + [2] * 2])
    weighting = DiffDW(4)
    weighting.init(COUNTS)
    for predicted, dice, weights in TRACE:
        found = batch_dice(sure_logits(predicted), target)
        assert found.tolist() == pytest.approx(dice, rel=1e-5)
        near(weighting.update(found), weights)


def test_diffdw_keeps_its_digits_where_the_dice_creeps():
    """Against the same recurrence in float64, on the same fp32 Dice: logarithms near 0 add up."""
    weighting, generator = DiffDW(4), torch.Generator().manual_seed(0)
    learned, unlearned, unsolved = np.zeros(4), np.zeros(4), np.ones(4)
    dice, last = torch.rand(4, generator=generator), np.full(4, 1e-8)
    for _ in range(600):
        dice = (dice + 1e-4 * torch.randn(4, generator=generator)).clamp(0.01, 1)
        weighting.update(dice)
        now = dice.double().numpy()
        speed = np.log(now / last)
        learned += (np.maximum(now - last, 0) * speed - learned) / 50
        unlearned += (np.minimum(now - last, 0) * speed - unlearned) / 50
        unsolved += (1 - now - unsolved) / 50
        last = now
    expected = ((unlearned + 1e-8) / (learned + 1e-8)) ** 0.2 * unsolved
    assert weighting.weights.tolist() == pytest.approx((4 * expected / expected.max()).tolist(), rel=2e-6)


def test_cld_rate_is_the_doubt_relative_to_the_largest():
    near(cld_sampling_rate(torch.tensor([0.9, 0.6, 0.0])), [math.sqrt(0.1), math.sqrt(0.4), 1])
    near(cld_sampling_rate(torch.tensor([0.5, 0.0]), gamma=2), [0.25, 1])
    near(cld_sampling_rate(torch.ones(3)), [1, 1, 1])


def test_confidences_are_means_over_a_window_then_averaged():
    bank = ConfidenceBank(3, momentum=0.9, update_every=2)
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]).T.unsqueeze(0)  # three voxels
    near(bank.update(p.log(), torch.tensor([[0, 1, -1]])), [0, 0, 0])
    near(bank.update(p.log(), torch.tensor([[0, 0, 1]])), [(0.7 + 0.7 + 0.5) / 3, (0.3 + 0.6) / 2, 0])
    first = bank.confidence.tolist()
    near(bank.update(p.log(), torch.tensor([[2, 2, 2]])), first)
    near(bank.update(p.log(), torch.tensor([[2, -1, -1]])), [0.9 * first[0], 0.9 * first[1], 0.1 * 0.7 / 4])


# ------------------------------------------------------------------------------------------------ what is looked at


@pytest.mark.parametrize(
    ("name", "expected"), [("crest", [1, 0, 2, 0]), ("distdw", [1, 0, 2, 0]), ("simis", [3, 1, 2, 0])]
)
def test_counts_are_of_unlabeled_voxels_and_simis_takes_all(name, expected):
    logits = sure_logits([0, 1, 0, 2, 2, 0])
    assert make(name).observe(a_step(), logits, torch.tensor([[0, 0, 1, -1, -1, -1]])).tolist() == expected


def test_dice_is_of_labeled_voxels():
    found = batch_dice(sure_logits([0, 1, 1, 2, 2, 2]), torch.tensor([[0, 1, 0, -1, -1, -1]]))
    near(found, [2 / 3, 2 / 3, 0.5, 0.5])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [7, 0, 0, 0], [5, 5, 5, 5]])
def test_zero_and_equal_counts_give_finite_weights(name, counts):
    weighting = make(name)
    assert weighting.init(torch.tensor(counts)).isfinite().all()
    labels = torch.tensor([[-1] * 4])
    for known in (labels, labels.clamp_min(0)):
        for _ in range(3):
            weights = stepped(weighting, sure_logits([0, 0, 0, 0]), known)
            assert weights.isfinite().all() and (weights >= 0).all()


@pytest.mark.parametrize("name", ["crest", "distdw"])
def test_a_step_without_unlabeled_voxels_changes_nothing(name):
    weighting = make(name)
    before = weighting.init(COUNTS)
    assert torch.equal(stepped(weighting, sure_logits([1, 2, 3]), torch.tensor([[0, 1, 2]])), before)


# --------------------------------------------------------------------------------------------------- voxel weights


def test_cld_keeps_voxels_at_the_rate_of_the_learners_own_class():
    weighting = CLD(3)
    weighting.bank.confidence = torch.tensor([0.96, 0.0, 0.75])  # rates 0.2, 1, 0.5
    weighting._draws = torch.Generator().manual_seed(0)
    logits = sure_logits([0] * 4000 + [1] * 4000 + [2] * 4000, 3)
    first, second = (weighting.voxel_weight(logits, logits.flip(1).softmax(1)) for _ in range(2))
    near(first.view(3, -1).mean(1), [0.2, 1, 0.5], tolerance=0.03)
    assert not torch.equal(first, second) and set(first.unique().tolist()) == {0.0, 1.0}


def test_cld_keeps_all_voxels_until_the_first_window_closes():
    weighting, labels = CLD(4, window=2), torch.tensor([[0, 1, 2, -1]])
    logits = sure_logits([0, 1, 2, 3]) / 10
    for expected in (0, 1):
        stepped(weighting, logits, labels)
        assert bool(weighting.bank.confidence.any()) == bool(expected)
        if not expected:
            assert weighting.voxel_weight(logits, logits.softmax(1)).tolist() == [[1, 1, 1, 1]]


def test_two_predictors_draw_different_maps():
    loss = Weighted(make_loss("default"), {"a": CLD(3), "b": CLD(3)})
    streams = []
    step = a_step()
    object.__setattr__(step, "generators", lambda stream, device: streams.append(stream))
    for key in "ab":
        loss.observe(step, key, torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64))
    assert streams == ["a/voxel-sampling", "b/voxel-sampling"]


def random_probabilities(seed, patches=4, num_classes=4, voxels=(6, 7)):
    g = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(patches, num_classes, *voxels, generator=g)).softmax(1)


def test_adsh_thresholds_by_hand():
    # Class 0 is predicted six times, with 0.95 three of them: half passes. Class 1 four times: rank 2 of all its p.
    p0 = torch.tensor([0.95, 0.95, 0.95, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
    probs = torch.stack([p0, 1 - p0]).unsqueeze(0)
    near(adsh_thresholds(probs), [0.8, 0.7])


def test_adsh_streams_what_sorting_finds():
    weighting = Adsh(4, capacity=8)
    batches = [random_probabilities(seed) for seed in range(3)]
    unknown = torch.full((4, 6, 7), -1)
    for number, probs in enumerate(batches):
        assert weighting.thresholds.any() == (number > 2)
        stepped(weighting, probs.log(), unknown)
    exact = adsh_thresholds(torch.cat(batches[:2]))  # the third came when the bank was full, and is not in it
    found = weighting.thresholds
    assert (found <= exact).all() and (exact - found <= 1 / 4096 + 1e-6).all()
    assert weighting.patches == 0 and not weighting.histogram.any()
    confidence, label = batches[2].max(1)
    kept = weighting.voxel_weight(batches[0], batches[2])
    assert torch.equal(kept.bool(), confidence >= found[label]) and 0 < kept.mean() < 1


def test_adsh_takes_a_quarter_of_the_unlabeled_cases_and_only_unlabeled_patches():
    of_job = Adsh.of_job({"tau": 0.8}, statistics(4))
    assert (of_job.options.capacity, of_job.options.tau) == (1, 0.8)
    weighting = Adsh(4, capacity=8)
    labels = torch.full((4, 6, 7), -1)
    labels[:2] = 1
    probs = random_probabilities(0)
    stepped(weighting, probs.log(), labels)
    assert weighting.patches == 2 and weighting.counts.sum() == 2 * 42
    assert torch.equal(weighting.counts, probs[2:].argmax(1).flatten().bincount(minlength=4))


# ----------------------------------------------------------------------------------------------- the contract's rest


@pytest.mark.parametrize("name", NAMES)
def test_state_goes_on_exactly_in_a_fresh_object(name):
    def run(weighting, seeds):
        for seed in seeds:
            logits = random_probabilities(seed).log()
            labels = logits.argmax(1).masked_fill(torch.arange(4).view(4, 1, 1) > 1, -1)
            stepped(weighting, logits, labels)
        return weighting

    options = {"adsh": {"capacity": 4}, "cld": {"window": 3}}.get(name, {})
    whole, half, fresh = (make(name, **options) for _ in range(3))
    for weighting in (whole, half):
        weighting.init(COUNTS)
    run(whole, range(7))
    fresh.load_state_dict(run(half, range(4)).state_dict())
    run(fresh, range(4, 7))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_device_or_loops_over_classes(name):
    calls = []
    for shape, classes in (((3, 5), 3), ((4, 5), 9)):
        logits = torch.randn(2, classes, *shape, generator=torch.Generator().manual_seed(0))
        labels = logits.argmax(1)
        labels[1] = -1
        weighting = make(name, classes)
        with Calls() as seen:
            weighting.init(torch.ones(classes))
            stepped(weighting, logits, labels)
            weighting.voxel_weight(logits, logits.softmax(1))
        calls.append(seen.names)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_full_size_runs_without_data(name):
    """On the meta device: whatever asks for a value, or mixes devices, raises."""
    weighting = make(name, 14).to("meta")
    step = a_step(device="meta")
    object.__setattr__(step, "generators", lambda stream, device: None)
    logits, labels = torch.randn(4, 14, 96, 96, 96, device="meta"), torch.zeros(4, 96, 96, 96, dtype=torch.int64)
    weighting.weights = weighting.update(weighting.observe(step, logits, labels.to("meta")))
    assert weighting.weights.device.type == "meta" and weighting.weights.shape == (14,)
    voxels = weighting.voxel_weight(logits, logits.softmax(1))
    assert voxels is None or voxels.shape == labels.shape


def test_class_weights_of_cld_count_an_absent_class_as_one_voxel():
    near(cld_class_weights(torch.tensor([8, 1, 0])), [1, 2, 2])


def test_options_stand_in_order_or_by_name():
    assert DistDW(4, 0.9).options.momentum == DistDW(4, momentum=0.9).options.momentum == 0.9
    assert DiffDW(4, 20, alpha=0.5).options == DiffDW(4, window=20, alpha=0.5).options
    with pytest.raises(TypeError):
        DiffDW(4, 20, window=30)


def test_options_are_checked():
    for name in NAMES:
        with pytest.raises(ValueError):
            make(name, no_such_option=1)
