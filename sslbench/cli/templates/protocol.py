"""A protocol: volumes and surfaces on the scan's own grid, in mm."""

import sslbench
from sslbench.metrics.protocol import EmptyPolicy

SURFACES = sslbench.Protocol(
    name="mine",
    version=1,
    description="Overlap and surfaces on the scan's grid; a missed class is 100 mm away.",
    grid="original",
    unit="mm",
    metrics=("dsc", "nsd@2", "hd95", "avd"),
    policy=EmptyPolicy(missed_distance=100.0, spurious_distance=100.0, capped=True),
    ddof=1,
)
