"""The base classes of values that users write: options of components, recipes, jobs, definitions of own data."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

SCHEDULED = "iterations of the schedule"

# A number of iterations that belongs to the schedule: a length, a start, a period of what happens a few times in a
# training. `schedule.scale` scales it. Memories of running estimates (windows, decays) are none: they do not grow with
# the training.
Iterations = Annotated[int, SCHEDULED]


class Frozen(BaseModel):
    """A value: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Options(Frozen):
    """The base of every component's options: typed fields with defaults, immutable, unknown names refused.

    A field's `description`, with its source, is what `sslbench show` prints. A group of fields is another `Options`.
    """


class NoOptions(Options):
    """The options of a component that has none."""
