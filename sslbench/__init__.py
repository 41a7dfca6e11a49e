"""sslbench: benchmark class-imbalanced semi-supervised medical image segmentation.

The public names are imported where they are first used, so that `import sslbench` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sslbench.config import Grid, Job, Recipe
    from sslbench.core.options import Options
    from sslbench.data.base import Dataset
    from sslbench.execution.worker import run_job
    from sslbench.losses.base import Loss
    from sslbench.losses.weighting import Weighting
    from sslbench.methods.base import Method
    from sslbench.metrics.protocols import Protocol
    from sslbench.networks.base import Network
    from sslbench.plugins.base import Plugin
    from sslbench.registry import register
    from sslbench.runs.collect import load_results

_PUBLIC = {
    "Dataset": "sslbench.data.base",
    "Grid": "sslbench.config",
    "Job": "sslbench.config",
    "Recipe": "sslbench.config",
    "Loss": "sslbench.losses.base",
    "Method": "sslbench.methods.base",
    "Network": "sslbench.networks.base",
    "Options": "sslbench.core.options",
    "Plugin": "sslbench.plugins.base",
    "Protocol": "sslbench.metrics.protocols",
    "Weighting": "sslbench.losses.weighting",
    "load_results": "sslbench.runs.collect",
    "register": "sslbench.registry",
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
