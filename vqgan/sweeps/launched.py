"""Jobs of a sweep in processes that a launcher started, on this machine or another: joblib, submitit, Ray."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from vqgan.errors import ConfigError, StoppedError, StorageError, VQGANError
from vqgan.runtime.signals import StopRequested, StopSignals, noting
from vqgan.text import show_warning

REQUEUE = "SIGUSR2"  # submitit's: time is up
PORTS = range(20_000, 32_000)  # below those that the system gives to whoever connects
ASKING = 20  # seconds that SLURM has to answer; usually it takes milliseconds


def job(function: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Let a job end as it would from the command line, and go back into the queue where its time is up.

    submitit's own handler for that signal would leave in the middle of a step. So the run stops and saves first, as on
    any signal, and the handler has its turn after that.
    """

    @functools.wraps(function)
    def run(config: DictConfig) -> Any:
        around = noting()
        if around is not None and around.interrupts:
            return function(config)  # in the process of the command that was typed, which knows what to do
        if around is not None and around.requested:
            sys.exit(StoppedError.exit_code)  # one of joblib's processes, told to stop between two jobs
        warnings.showwarning = show_warning
        _join_tasks()
        stop = StopSignals()
        try:
            with stop, stop.at_once():
                return function(config)
        except (StopRequested, SystemExit) as end:
            if callable(signal.getsignal(signal.Signals[REQUEUE])) and (REQUEUE in stop.came or _is_preempted()):
                _requeue()
            if isinstance(end, SystemExit):
                raise
            print(f"\nStopped by {end}; what was finished is saved.", file=sys.stderr, flush=True)
            sys.exit(StoppedError.exit_code)

    return run


def prepare() -> None:
    """Prepare this process to launch jobs."""
    if importlib.util.find_spec("joblib") is not None:
        from vqgan.sweeps import cores

        cores.let_jobs_save()


def failure(error: Exception) -> VQGANError | None:
    """What a launcher complains about, in one paragraph; None if it is our own bug.

    SLURM refuses a job, or there is no SLURM; or a job has ended without a word, since it was cancelled or killed.
    """
    if type(error).__name__ == "TerminatedWorkerError":
        return StorageError(
            "The process of a job was killed, by the system if memory ran out, and joblib has killed the others. Their "
            "newest checkpoints are good, and the same command again goes on from them; fewer hydra.launcher.n_jobs "
            "need less memory."
        )
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    if not str(innermost.f_globals.get("__name__")).startswith("submitit."):
        return None
    if "failed during processing with trace" in str(error):
        return None
    reason = " ".join(str(error).partition("Error stream produced:")[0].split()).rstrip(".?")
    if type(error).__name__ == "UncompletedJobError":
        return StoppedError(f"{reason}. The other jobs go on; the same command again does what is left to do.")
    return ConfigError(f"The jobs cannot be submitted: {reason}. See hydra.launcher's values: --cfg hydra.")


def _join_tasks() -> None:
    """In a job of several tasks, tell each which of the training processes it is, in the variables of `torchrun`."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    import submitit

    job = submitit.JobEnvironment()
    if job.num_tasks > 1:
        os.environ["MASTER_PORT"] = str(PORTS.start + zlib.crc32(job.job_id.encode()) % len(PORTS))  # the same for all
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def _is_preempted() -> bool:
    """Whether SLURM will soon take the machine away for a more important job.

    It says so by SIGTERM, as to a job that was cancelled. Where it gives some time to end (`GraceTime`), it does not
    queue a job again that has ended in that time; where it gives none, it has done so already.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return False
    command = ["scontrol", "show", "job", "--oneliner", os.environ["SLURM_JOB_ID"]]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASKING, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    fields = dict(field.partition("=")[::2] for field in said.split())
    return fields.get("JobState") == "RUNNING" and fields.get("PreemptTime", "None") != "None"


def _requeue() -> None:
    """Hand the signal on to submitit, which puts the job back into the queue and ends this process.

    Raises:
        StoppedError: it will not.
    """
    try:
        signal.raise_signal(signal.Signals[REQUEUE])
    except RuntimeError as error:
        raise StoppedError(
            f"Stopped by {REQUEUE}, saved. {str(error).rstrip('.')}; see hydra.launcher.max_num_timeout. "
            "The same command again goes on."
        ) from None
