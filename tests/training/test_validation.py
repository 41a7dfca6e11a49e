"""The validation score: counted in integers on the device, equal to the plain way, cases kept and batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sslbench.config.job import Job
from sslbench.inference.predictor import Predictor
from sslbench.training.experiment import Experiment, ValidationCase
from sslbench.training.validation import Validation, _Held, class_counts
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d


def plain(experiment: Experiment, key: str | None) -> Tensor:
    """The scores case by case, by a confusion matrix on the host."""
    C = experiment.num_classes
    predictor = Predictor(experiment.method, key, experiment.resolved.recipe, C, experiment.precision)
    scores = []
    for case in experiment.validation:
        prediction = predictor.segment(case.image, validation=True).flatten().long().cpu()
        reference = torch.from_numpy(case.label.astype("int64")).flatten()
        table = torch.bincount(reference * C + prediction, minlength=C * C).view(C, C).double()
        sizes = table.sum(0) + table.sum(1)
        scores.append(torch.where(sizes > 0, 2 * table.diagonal() / sizes, torch.nan)[1:])
    return torch.stack(scores).nanmean(0)


@pytest.mark.parametrize("budget", [0, 200_000, 1 << 40])
@pytest.mark.parametrize("job", [tiny_job(), tiny_job_2d("cps")], ids=["3d", "2d"])
def test_scores_are_those_of_a_confusion_matrix_on_the_host(job: Job, budget: int) -> None:
    experiment = random_experiment(job)
    validation = Validation(experiment, budget)
    for key in (None, experiment.method.predictors[0]):
        expected = plain(experiment, key)
        for _ in range(2):  # the second time of cases that were kept
            assert torch.equal(validation.scores(key).nan_to_num(-1), expected.nan_to_num(-1))


def test_cases_are_opened_once_where_they_stay_and_each_time_where_they_do_not() -> None:
    experiment = random_experiment(tiny_job_2d())
    whole = [*experiment.validation]
    opened: list[int] = []

    class Watched(list[ValidationCase]):
        def __getitem__(self, place):
            opened.append(place)
            return super().__getitem__(place)

        def __iter__(self):
            return (self[place] for place in range(len(self)))

    object.__setattr__(experiment, "validation", Watched(whole))
    for budget, times in ((0, 2), (1 << 30, 1)):
        opened.clear()
        validation = Validation(experiment, budget)
        validation.scores(None)
        validation.scores(None)
        assert sorted(opened) == sorted([*range(len(whole))] * times)


def test_tiles_of_one_size_share_forward_passes_and_score_as_alone() -> None:
    experiment = random_experiment(tiny_job_2d())
    random = np.random.default_rng(0)
    sizes = [(40, 36)] * 5 + [(30, 30)] * 2 + [(40, 36)]
    tiles = [
        ValidationCase("x", random.random((1, 1, *size), dtype=np.float32), random.integers(0, 4, (1, *size)), number)
        for number, size in enumerate(sizes)
    ]
    object.__setattr__(experiment, "validation", tiles)
    passes: list[int] = []
    predict = experiment.method.predict

    def counted(x: Tensor, key: str | None = None) -> Tensor:
        passes.append(len(x))
        return predict(x, key)

    experiment.method.predict = counted  # type: ignore[method-assign]
    found = Validation(experiment).scores(None)
    assert sum(passes) == len(tiles) and len(passes) == 3
    assert torch.equal(found, plain(experiment, None))


def test_an_absent_class_that_is_not_predicted_says_nothing() -> None:
    label = torch.tensor([0, 0, 1, 2, 2], dtype=torch.uint8)
    held = _Held(torch.zeros(1, 5), label, torch.tensor([2, 1, 2, 0]))
    both, sizes = class_counts(torch.tensor([0, 1, 1, 2, 0], dtype=torch.uint8), held, 4)
    assert both.tolist() == [1, 1, 1, 0] and sizes.tolist() == [4, 3, 3, 0]
