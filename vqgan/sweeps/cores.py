"""Jobs side by side on this machine, by joblib; where that would kill them, they are told to stop, and save."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from typing import Any

from joblib.parallel import LokyBackend, register_parallel_backend

from vqgan.runtime.signals import StopSignals


class PatientBackend(LokyBackend):  # type: ignore[misc]  # joblib has no types
    """joblib's processes, told to end and waited for before it kills them."""

    def configure(self, *arguments: Any, **values: Any) -> int:
        """Start the processes."""
        count: int = super().configure(*arguments, initializer=prepare_process, **values)
        return count

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all jobs; called when the sweep is told to stop."""
        for process in list((self._workers._processes or {}).values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        self._workers.shutdown(wait=True)  # jobs that were handed out already end as soon as they begin
        super().abort_everything(ensure_ready)


def let_jobs_save() -> None:
    """Have it so for all sweeps that this process starts."""
    register_parallel_backend("loky", PatientBackend)


def prepare_process() -> None:
    """Prepare one of joblib's processes for jobs.

    It lives on when it is told to stop between two of them: if it died, joblib would kill the others at once. And it
    starts processes of its own, which read data, in the usual way: joblib's is only for its own ones.
    """
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    StopSignals().__enter__()  # and never left: it notes what comes, for the next job to see
