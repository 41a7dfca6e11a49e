"""A measurement of this machine, kept for estimates alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sslbench.cli.terminal import costs
from sslbench.execution.cost import Bill, Pricer, cores
from sslbench.execution.measured import MEASURED, keep_measured, measured_rate
from tests.helpers.jobs import phantom_job

CPU = torch.device("cpu")


def test_estimates_go_by_a_measurement_and_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    assert not Pricer(tmp_path, CPU).rate[1]
    keep_measured(CPU, 7e9, [{"cell": "phantom cps+ga"}])
    pricer, bill = Pricer(tmp_path, CPU), Bill()
    assert pricer.rate == (7e9 * cores() / torch.get_num_threads(), True)
    pricer.add(bill, phantom_job("cps"))
    facts = pricer.facts(bill)
    assert facts["rate_date"] == date.today().isoformat()
    line = " ".join(costs._grounds(facts))
    assert f"measured on {date.today().isoformat()} on this processor" in line and "assumption" not in line


def test_a_measurement_is_that_of_its_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path))
    assert keep_measured(CPU, 7e9, []) == tmp_path / MEASURED
    assert measured_rate(CPU) is not None
    monkeypatch.setattr("sslbench.execution.measured.device_name", lambda device: "another")
    assert measured_rate(CPU) is None
    (tmp_path / MEASURED).write_text('{"another | torch 1 | threads 1": 3}')
    assert measured_rate(CPU) is None


def test_without_a_place_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", "off")
    assert keep_measured(CPU, 7e9, []) is None and measured_rate(CPU) is None


def test_without_a_measurement_the_estimate_says_what_measures(tmp_path: Path) -> None:
    pricer, bill = Pricer(tmp_path, CPU), Bill()
    pricer.add(bill, phantom_job("cps"))
    console = Console(width=120, record=True)
    console.print(" ".join(costs._grounds(pricer.facts(bill))))
    assert "an assumption; sslbench bench measures it" in " ".join(console.export_text().split())
