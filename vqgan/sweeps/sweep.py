"""A sweep: many runs in one folder. Its command again does what is left to do, and says what became of each run."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from vqgan.config.user_errors import USER_ERRORS, end
from vqgan.config.versions import sweep_is_broken_off
from vqgan.errors import ConfigError, DivergedError, RunFolderInUseError, missing_extra
from vqgan.files.writing import storing
from vqgan.runs.criterion import Criterion
from vqgan.runs.saved import typed_for
from vqgan.runs.status import SETTLED, Status, status_of
from vqgan.runs.sweep import agreed, definition_of, is_search, swept_overrides, write_definition
from vqgan.runtime.signals import noting
from vqgan.text import counted, table, without_secrets

LONGEST_REASON = 160  # characters of a message in a table


class Sweep(Callback):
    """Hydra's hook before the first job of a sweep and after the last one, in the process that launches them."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Hold the sweep's folder, refuse one of another sweep, and try a search's storage."""
        with ending(sys.argv[1:]):
            Criterion(config.objective)
            _check_direction(config)
            self.folder = Path(str(config.hydra.sweep.dir))
            self.lock = _hold(self.folder)
            self.command = _command(sys.argv, self.folder)
            stop = noting()
            if stop is not None:  # a signal between two jobs, or while a launcher waits for them, meets no code of ours
                stop.goes_on = f"Go on with: {without_secrets(self.command, sys.argv)}"
            try:
                definition = agreed(self.folder, definition_of(config))
                _pin(config, "hydra.sweep.dir", str(self.folder))  # one folder, even where jobs differ in `name`
                if is_search(config.hydra):
                    _pin(config, "hydra.sweeper.study_name", str(definition.study))
                    _try_storage(config.hydra.sweeper.storage.url)
                write_definition(self.folder, definition)
            except BaseException:
                self._leave()
                raise

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Say what has become of each job, and end with the exit code of the first that failed, if one did."""
        if sweep_is_broken_off():
            return
        with ending(sys.argv[1:]):
            jobs = read_jobs(self.folder)
            rows = summary(jobs, Criterion(config.objective))
            print(f"\nSweep {self.folder}: {counted(len(jobs), 'job')}\n{table(rows)}")
            if len(jobs) > 1:
                print(f"Compare them: vqgan compare {shlex.quote(str(self.folder))}")
            if any(job.status.state not in SETTLED for job in jobs):
                print(f"The same command goes on with what is not settled:\n  {self.command}")
            sys.stdout.flush()
            self._leave()
            sys.exit(exit_code(jobs))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: launchers send a copy to the processes of jobs, where it holds no folder."""
        return {}

    def _leave(self) -> None:
        self.lock.release()
        with contextlib.suppress(OSError):
            if [path.name for path in self.folder.iterdir()] == [".lock"]:  # nothing came of it
                (self.folder / ".lock").unlink()
                self.folder.rmdir()


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    folder: Path
    overrides: Sequence[str]  # of the swept keys
    status: Status


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep's folder, by number."""
    found = (file.parent for file in folder.glob("*/status.json"))
    numbered = sorted(found, key=lambda path: (len(path.name), path.name))
    return [
        Job(
            path,
            swept_overrides(folder, typed_for(path)),
            status_of(path) or Status("unknown"),
        )
        for path in numbered
    ]


def summary(jobs: Sequence[Job], objective: Criterion) -> list[tuple[str, str]]:
    """Rows of a table: how many ended how, each that did not finish with the reason, and the best one."""
    rows = [(state, str(count)) for state, count in Counter(job.status.state for job in jobs).items()]
    ends: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if job.status.state not in ("finished", "pruned"):
            ends.setdefault((job.status.state, job.status.message or "its process is gone."), []).append(job)
    for (state, message), alike in ends.items():
        reason = textwrap.shorten(re.split(r"(?<=\.)\s", message)[0], LONGEST_REASON, placeholder=" …")
        if len(alike) == 1:
            rows.append((f"job {alike[0].folder.name}", f"{state}: {values_of(alike[0].overrides)}: {reason}"))
        else:
            rows.append((f"jobs {', '.join(job.folder.name for job in alike)}", f"{state}: {reason}"))
    finished = [job for job in jobs if job.status.state == "finished"]
    known = [(value, job) for job in finished if (value := objective.best(job.folder)) is not None]
    if known:
        value, job = max(known, key=lambda pair: pair[0])
        rows.append(("best", f"job {job.folder.name}: {values_of(job.overrides)}: {objective.text(value)}"))
    return rows


def values_of(overrides: Sequence[str]) -> str:
    """Overrides in one line, for a person: four digits of numbers."""
    return " ".join(re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", o) for o in overrides)


def exit_code(jobs: Sequence[Job]) -> int:
    """0 if all finished or were pruned; else the code of the first job that another try may mend; else diverged."""
    open_jobs = [job for job in jobs if job.status.state not in SETTLED]
    if open_jobs:
        return open_jobs[0].status.exit_code or 1
    return DivergedError.exit_code if any(job.status.state == "diverged" for job in jobs) else 0


@contextlib.contextmanager
def ending(typed: Sequence[str]) -> Iterator[None]:
    """End the process by `SystemExit` where a callback fails: of an error Hydra would make a warning."""
    try:
        yield
    except USER_ERRORS as error:
        end(error, typed)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _check_direction(config: DictConfig) -> None:
    direction = OmegaConf.select(config, "hydra.sweeper.direction")
    if direction is not None and str(direction).rpartition(".")[2] != "maximize":
        raise ConfigError(
            f"hydra.sweeper.direction must be maximize, but is {direction}: objective=-NAME is for a scalar that is to "
            "be small, and hydra/sweeper=search is the search of this package."
        )


def _hold(folder: Path) -> FileLock:
    if (folder / "config.yaml").exists():
        raise ConfigError(f"run_dir={folder} is the folder of a single run; a sweep needs one of its own.")
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderInUseError(
            f"The sweep in {folder} is running. Wait for it, or choose another run_dir."
        ) from None
    return lock


def _try_storage(url: str) -> None:
    try:
        from vqgan.sweeps import trials
    except ImportError as error:
        raise missing_extra(f"A search ({error})", "optuna") from None
    trials.open_storage(url)  # now, while nothing is written yet


def _pin(config: DictConfig, key: str, value: str) -> None:
    """Fix a value of Hydra's for all jobs, which compose their config anew."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    with flag_override(config.hydra, ["readonly", "struct"], False):
        OmegaConf.update(config, key, value)
        config.hydra.overrides.hydra.append(f"{key}='{quoted}'")


def _command(arguments: Sequence[str], folder: Path) -> str:
    program = ["python", "train.py"] if arguments[0].endswith(".py") else ["vqgan", "train"]
    rest = [argument for argument in arguments[1:] if not argument.startswith("run_dir=")]
    return shlex.join([*program, *rest, f"run_dir={folder}"])
