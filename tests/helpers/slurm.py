"""A Slurm of one node in a folder of its own: daemons, key, sockets and ports are nobody else's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")

_CONF = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={control}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0
ReturnToService=2
KillWait=20
MinJobAge=300
SlurmdTimeout=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """A running Slurm.

    Attributes:
        folder: of all that it writes.
        environment: in which its commands find it.
    """

    folder: Path
    environment: Mapping[str, str]
    _daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def call(self, *command: str) -> str:
        """What a command of Slurm printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def begin(self, *command: str) -> subprocess.Popen[bytes]:
        """A command of Slurm that is not waited for."""
        return subprocess.Popen(command, env=self.environment)

    def states(self) -> dict[str, str]:
        """The states of all tasks that Slurm knows."""
        lines = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def start_daemon(self, *command: str) -> None:
        """Start a daemon that stays in the foreground."""
        log = (self.folder / f"{Path(command[0]).name}.out").open("ab")
        with log:
            self._daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def restart_node(self) -> None:
        """Kill the node's daemon, and start it again: what runs on the node goes on."""
        killed = self._daemons.pop()
        killed.kill()
        killed.wait()
        self.start_daemon(*map(str, killed.args))

    def end(self) -> None:
        """End the daemons, and the jobs that still run."""
        subprocess.run(["scancel", "--user=root", "--signal=KILL", "--full"], env=self.environment, check=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def why_not() -> str:
    """Why no Slurm can be started here; empty where one can."""
    missing = [name for name in _PROGRAMS if not _path_of(name)]
    if missing:
        return f"there is no {', '.join(missing)} (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: sockets have paths of 100 signs
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    ports = _free_port(), _free_port()
    configuration.write_text(_CONF.format(folder=folder, host=host, control=ports[0], node=ports[1]))
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    made = Cluster(folder, environment)
    try:
        made.start_daemon(
            _path_of("munged"), "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
            "--force",
        )  # fmt: skip
        _wait(lambda: (folder / "munge.socket").exists(), folder)
        # The node's daemon last: `restart_node` takes it.
        made.start_daemon(_path_of("slurmctld"), "-D", "-f", str(configuration))
        made.start_daemon(_path_of("slurmd"), "-D", "-f", str(configuration), "-N", host)
        _wait(lambda: _idle(environment), folder)
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


def _idle(environment: Mapping[str, str]) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == "idle"


def _wait(found, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            said = "\n".join(path.read_text()[-1500:] for path in sorted(folder.glob("*.out")))
            raise AssertionError(f"Slurm does not start:\n{said}")
        time.sleep(0.2)


def _path_of(name: str) -> str:
    return shutil.which(name) or next((f"{place}/{name}" for place in _SYSTEM if Path(place, name).exists()), "")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
