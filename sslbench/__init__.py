"""sslbench: benchmark class-imbalanced semi-supervised medical image segmentation.

The public names are imported where they are first used, so that `import sslbench` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sslbench.config.grid import Grid
    from sslbench.config.job import Job
    from sslbench.config.recipe import Recipe
    from sslbench.core.options import Options
    from sslbench.core.registry import register
    from sslbench.data.base import Dataset
    from sslbench.execution.worker import run_job
    from sslbench.losses.base import Loss, Term
    from sslbench.losses.weighting import Weighting
    from sslbench.methods.base import Method
    from sslbench.metrics.protocol import Protocol
    from sslbench.networks.base import Network
    from sslbench.plugins.base import Plugin
    from sslbench.runs.collect import load_results

_PUBLIC = {
    "Dataset": "sslbench.data.base",
    "Grid": "sslbench.config.grid",
    "Job": "sslbench.config.job",
    "Recipe": "sslbench.config.recipe",
    "Loss": "sslbench.losses.base",
    "Term": "sslbench.losses.base",
    "Method": "sslbench.methods.base",
    "Network": "sslbench.networks.base",
    "Options": "sslbench.core.options",
    "Plugin": "sslbench.plugins.base",
    "Protocol": "sslbench.metrics.protocol",
    "Weighting": "sslbench.losses.weighting",
    "load_results": "sslbench.runs.collect",
    "register": "sslbench.core.registry",
    "run_job": "sslbench.execution.worker",
}

__all__ = [
    "Dataset",
    "Grid",
    "Job",
    "Loss",
    "Method",
    "Network",
    "Options",
    "Plugin",
    "Protocol",
    "Recipe",
    "Term",
    "Weighting",
    "__version__",
    "load_results",
    "register",
    "run_job",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sslbench' has no attribute {name!r}")
