"""Results folders joined into one: what is copied, what stays, what is refused; and what may be deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sslbench.core.errors import UsageError
from sslbench.runs import cleaning, merging
from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.folders import snapshot

Write = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.fixture
def places(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(here=tmp_path / "here", one=tmp_path / "one", two=tmp_path / "two")


def steps(*folders: Path, into: Path) -> list[str]:
    return [joining.step for joining in merging.plan_merge(folders, into)]


def joined(*folders: Path, into: Path) -> None:
    merging.merge(merging.plan_merge(folders, into))


def test_runs_of_two_machines_come_together_whole(write_run: Write, places: SimpleNamespace) -> None:
    for seed, place in enumerate((places.here, places.one, places.two)):
        run = write_run(0.5 + seed / 10, seed=seed, results=place)
        (run / "lease.json").write_text("{}")
        (run / "slurm.json").write_text('{"task": "1_0", "log": "/elsewhere"}')
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "step-00000006.pt").write_bytes(b"state")
    before = snapshot(places.one)
    assert steps(places.one, places.two, into=places.here) == ["copy", "copy"]
    assert len(list(places.here.glob("runs/*/*/*/*"))) == 1, "a plan does nothing"
    joined(places.one, places.two, into=places.here)
    runs = sorted(places.here.glob("runs/*/*/*/*"), key=lambda path: path.name)
    assert [path.name[:6] for path in runs] == ["seed-0", "seed-1", "seed-2"]
    (source,) = places.one.glob("runs/*/*/*/*")
    assert (runs[1] / "cases.csv").read_bytes() == (source / "cases.csv").read_bytes()
    assert (runs[1] / "checkpoints" / "step-00000006.pt").read_bytes() == b"state"
    assert not (runs[1] / "lease.json").exists() and not (runs[1] / "slurm.json").exists()
    assert snapshot(places.one) == before
    assert steps(places.one, places.two, into=places.here) == ["same", "same"]


def test_the_same_job_with_other_records_is_refused_and_named(write_run: Write, places: SimpleNamespace) -> None:
    there = write_run(0.5, results=places.here)
    write_run(0.6, results=places.one)
    write_run(0.7, seed=1, results=places.one)
    before = (there / "cases.csv").read_bytes()
    by_step = {joining.step: joining for joining in merging.plan_merge([places.one], places.here)}
    assert set(by_step) == {"contradiction", "copy"} and "other records than" in by_step["contradiction"].reason
    code, out, err = call("merge", str(places.one), "--results-dir", str(places.here), "--yes")
    assert code == 1 and "1 run: contradict what is there: refused" in out and "joined 1 run" in err
    assert str(there.relative_to(places.here)) in err
    assert (there / "cases.csv").read_bytes() == before
    assert len(list(places.here.glob("runs/*/*/*/*"))) == 2


def test_of_two_that_contradict_each_other_neither_is_taken(write_run: Write, places: SimpleNamespace) -> None:
    write_run(0.5, results=places.one)
    write_run(0.6, results=places.two)
    assert steps(places.one, places.two, into=places.here) == ["leave", "contradiction"]


def test_results_of_other_data_contradict(write_run: Write, places: SimpleNamespace) -> None:
    write_run(0.5, results=places.here, data={"fingerprint": "a"})
    write_run(0.5, results=places.one, data={"fingerprint": "b"})
    (joining,) = merging.plan_merge([places.one], places.here)
    assert joining.step == "contradiction" and joining.reason.startswith("other data than")


def test_what_is_further_takes_the_place(write_run: Write, places: SimpleNamespace) -> None:
    there = write_run(results=places.here, state="interrupted")
    done = write_run(0.5, results=places.one)
    behind = write_run(seed=1, results=places.one, state="interrupted")
    write_run(0.5, seed=1, results=places.here)
    assert sorted(steps(places.one, into=places.here)) == ["replace", "stays"]
    joined(places.one, into=places.here)
    assert Run(there).look() == "finished" and (there / "cases.csv").read_bytes() == (done / "cases.csv").read_bytes()
    assert json.loads((there.with_name(there.name + ".old-1") / "status.json").read_text())["state"] == "interrupted"
    assert behind.exists()


def test_what_is_damaged_is_left_and_a_folder_without_runs_is_an_error(
    write_run: Write, places: SimpleNamespace, tmp_path: Path
) -> None:
    (write_run(0.5, results=places.one) / "cases.csv").unlink()
    (joining,) = merging.plan_merge([places.one], places.here)
    assert joining.step == "leave" and joining.reason.startswith("damaged: ")
    with pytest.raises(UsageError, match="holds no runs"):
        merging.plan_merge([tmp_path / "nothing"], places.here)
    with pytest.raises(UsageError, match="itself"):
        merging.plan_merge([places.one], places.one)


def test_nothing_is_done_without_a_yes(write_run: Write, places: SimpleNamespace) -> None:
    write_run(0.5, results=places.one)
    code, out, err = call("merge", str(places.one), "--results-dir", str(places.here))
    assert (code, out) == (0, "1 run: copied\n") and "nothing was changed: --yes does it" in err
    assert not places.here.exists()


def filled(run: Path) -> Path:
    (run / "checkpoints").mkdir()
    for name in ("step-00000003", "step-00000006", "best-00000003"):
        (run / "checkpoints" / f"{name}.pt").write_bytes(b"x" * 2_500_000)
    return run


def left(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_clean_says_how_much_and_keeps_what_predict_needs(write_run: Write, tmp_path: Path) -> None:
    done, begun = filled(write_run(0.5)), filled(write_run(seed=1, state="interrupted"))
    aside = filled(write_run(0.5, seed=2)).rename(done.with_name(done.name + ".old-1"))
    results = ("--results-dir", str(tmp_path / "results"))
    code, out, err = call("clean", *results)
    assert code == 0 and out == "older checkpoints of finished runs: 1, 2.5 MB\n"
    assert "--aside" in err and "nothing was changed" in err and len(left(done)) == 3
    assert "freed 2.5 MB" in call("clean", *results, "--yes")[2]
    assert left(done) == ["best-00000003.pt", "step-00000006.pt"] and len(left(begun)) == 3 and aside.exists()
    call("clean", *results, "--yes", "--all", "--aside")
    assert left(done) == [] and len(left(begun)) == 3 and not aside.exists()
    assert Run(done).look() == "finished"


def test_only_what_was_moved_aside_counts_as_that(write_run: Write, tmp_path: Path) -> None:
    run = write_run(0.5)
    (run.parent / "mine.old-1").mkdir()
    (run.parent / f"{run.name}.old").mkdir()
    (run.parent / f"{run.name}.old-2").mkdir()
    assert [path.name for path in cleaning.set_aside(tmp_path / "results").paths] == [f"{run.name}.old-2"]
