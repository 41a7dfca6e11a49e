"""Jobs with their place in their grid's table."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sslbench.config.job import Job
from sslbench.core.options import Frozen


class TablePlace(Frozen):
    """Where the row of a job stands in its grid's table, and under which name.

    Attributes:
        label: `as` of its entry; empty: none.
        heading: None: none was given.
        note: a footnote.
        names: of method, loss and plugin, canonical, without what varies; None: nothing does.
        varied: values of what varies, by dotted path, as written.
        tuned: what the trials of a tuned grid chose, by dotted path.
        printed: number of its row in the published table that the grid follows, from 0; None: it is not among them.
    """

    label: str = ""
    heading: str | None = None
    note: str = ""
    names: tuple[str, str, str] | None = None
    varied: dict[str, Any] = {}
    tuned: dict[str, Any] = {}
    printed: int | None = None


class GridJob(Job):
    """A job of a grid, with its place in the grid's table."""

    place: TablePlace = Field(default=TablePlace(), exclude=True, repr=False)


def place_of(job: Job) -> TablePlace:
    """The place of a job in its grid's table; any other job has none of its own."""
    return job.place if isinstance(job, GridJob) else TablePlace()
