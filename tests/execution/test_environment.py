"""What a worker process is given: its threads, its one card, kernels that repeat, memory that stays."""

from __future__ import annotations

import pytest

from sslbench.core.errors import UsageError
from sslbench.execution import local
from sslbench.execution.environment import worker_environment


@pytest.mark.parametrize(
    ("visible", "device", "card"),
    [
        (None, "cuda:1", "1"),
        (None, "cuda", "0"),
        ("2,3", "cuda:1", "3"),
        ("GPU-aa, GPU-bb", "cuda:0", "GPU-aa"),
    ],
)
def test_a_worker_sees_its_own_card_alone(visible: str | None, device: str, card: str) -> None:
    own = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    made, name = worker_environment(device, 3, own)
    assert (made["CUDA_VISIBLE_DEVICES"], name) == (card, "cuda")
    assert made["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and made["OMP_NUM_THREADS"] == "3"
    assert "MALLOC_MMAP_MAX_" not in made


def test_a_worker_on_the_cpu_keeps_its_buffers_and_what_the_user_set() -> None:
    made, name = worker_environment("cpu", 1, {"MALLOC_TRIM_THRESHOLD_": "5", "HOME": "there"})
    assert name == "cpu" and (made["MALLOC_MMAP_MAX_"], made["MALLOC_TRIM_THRESHOLD_"]) == ("0", "5")
    assert made["HOME"] == "there" and "CUDA_VISIBLE_DEVICES" not in made


def test_threads_that_wait_soon_sleep_unless_the_user_says_how_they_wait() -> None:
    made = [
        worker_environment("cpu", 2, own)[0] for own in ({}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"})
    ]
    assert [each.get("GOMP_SPINCOUNT") for each in made] == ["10000", None, "7"]


def test_a_card_that_torch_cannot_use_stops_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(UsageError, match=r"built for CUDA 13\.0.*580") as stopped:
        local.slot_devices(2, None)
    assert "--device cpu" in stopped.value.hint
    assert local.slot_devices(2, "cpu") == ["cpu", "cpu"]
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(local, "has_nvidia_card", lambda: True)
    with pytest.raises(UsageError, match="has an NVIDIA card, but torch is built for the CPU"):
        local.slot_devices(1, None)
    monkeypatch.setattr(local, "has_nvidia_card", lambda: False)
    assert local.slot_devices(1, None) == ["cpu"]
