"""Jobs side by side on this machine, by joblib; where that would kill them, they are told to stop, and save."""

from __future__ import annotations

import contextlib
import os
import signal

from joblib.parallel import LokyBackend, register_parallel_backend


class PatientBackend(LokyBackend):  # type: ignore[misc]  # joblib has no types
    """joblib's processes, told to end and waited for before it kills them."""

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all jobs; called when the sweep is told to stop, or when one of its processes was killed."""
        processes = list((self._workers._processes or {}).values())
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        for process in processes:
            process.join()
        super().abort_everything(ensure_ready)


def let_jobs_save() -> None:
    """Have it so for all sweeps that this process starts."""
    register_parallel_backend("loky", PatientBackend)
