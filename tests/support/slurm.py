"""A real SLURM of one node, without systemd: its files, key and sockets are in one folder, its ports are free ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"  # where daemons are, even for a user whose PATH lacks it
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=graceful Nodes=ALL PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why there can be no SLURM here; None if there can."""
    absent = [program for program in PROGRAMS if not shutil.which(program, path=f"{os.environ['PATH']}:{SYSTEM}")]
    if absent:
        return f"no {absent[0]}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "SLURM's daemons need root"


@dataclass(frozen=True)
class Cluster:
    """A running SLURM; `environment` is what its programs, and whoever starts them, need."""

    environment: dict[str, str]

    def say(self, *command: str) -> str:
        """What one of its programs prints."""
        return subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    def preempt(self) -> None:
        """Start a job of the higher partition that needs the whole node for a moment."""
        self.say("sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")

    def job(self) -> str:
        """The one job of the lower partitions that is there."""
        (job,) = self.say("squeue", "--noheader", "--partition=low,graceful", "--format=%A").split()
        return job

    def state(self, job: str) -> str:
        """What has become of a job, in SLURM's word."""
        return self.say("scontrol", "show", "job", "--oneliner", job).partition(" JobState=")[2].partition(" ")[0]

    def start_again(self, job: str) -> None:
        """Wait until a job is back in the queue, and let it begin in seconds, where SLURM lets it wait for two minutes.

        Not at once: the node still takes a credential of the same second for the one that it has revoked.
        """
        wait_until(lambda: self.say("squeue", "--noheader", f"--jobs={job}", "--format=%T") == "PENDING")
        assert "Restarts=1" in self.say("scontrol", "show", "job", job)
        self.say("scontrol", "update", f"jobid={job}", "StartTime=now+3")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start one in a folder; all its jobs and daemons are gone at the end."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, config = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller, node = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    config.write_text(CONFIG.format(folder=folder, host=host, controller=controller, node=node))
    path = f"{os.environ['PATH']}:{SYSTEM}"
    found = Cluster({"SLURM_CONF": str(config), "PATH": path})
    munged = [
        f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
    ]  # fmt: skip
    daemons = []
    try:
        for command in (["munged", "--foreground", "--force", *munged], ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            output = (folder / f"{command[0]}.out").open("w")
            environment = os.environ | found.environment
            daemons.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            output.close()
            if command[0] == "munged":
                wait_until((folder / "munge.socket").exists)
        wait_until(lambda: found.say("sinfo", "--noheader", "--partition=low", "--format=%T") == "idle")
        yield found
        found.say("scancel", "--user=root")
        wait_until(lambda: found.say("squeue", "--noheader") == "")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> None:
    """Ask until it holds.

    Raises:
        TimeoutError: it did not.
    """
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(subprocess.CalledProcessError):  # a daemon that is not there yet
            if holds():
                return
        time.sleep(0.1)
    raise TimeoutError


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
