"""A process that holds a run, for tests of leases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OWNER = """
import sys, time
from pathlib import Path
from sslbench.runs.directory import Run
run = Run(Path(sys.argv[1]))
with run.lease():
    run.set_status("running", attempts=1)
    print("held", flush=True)
    time.sleep(60)
"""


def start_owner(directory: Path) -> subprocess.Popen[str]:
    """A process that holds a run until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process
