"""What has become of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vqgan.errors import DivergedError, PrunedError, StoppedError, VQGANError
from vqgan.files.reading import read_json
from vqgan.files.writing import replace_text
from vqgan.runtime.signals import StopRequested
from vqgan.text import without_secrets

STATUS = "status.json"
# States that another try would not change: a run that diverged would diverge again.
SETTLED = ("finished", "pruned", "diverged")
LARGEST_STATUS = 2**16  # bytes


@dataclass(frozen=True)
class Status:
    """What has become of a run."""

    # `running`, `finished`, `stopped` (by a signal, saved), `pruned` (by a search), `diverged`, `failed`, `interrupted`
    # (its process is gone)
    state: str
    message: str | None = None  # the paragraph that an error ended with
    exit_code: int | None = None  # of the process; None while it runs, or where it was killed


def record_end(folder: Path, error: BaseException | None, typed: Iterable[str]) -> None:
    """Write down what has become of the run in a folder: what it ended with, or that it is finished.

    Args:
        folder: of the run.
        error: that it ended with.
        typed: for the run.

    Raises:
        StorageError: it cannot be written.
    """
    replace_text(folder / STATUS, to_json(status_after(error, typed)))


def status_of(folder: Path) -> Status | None:
    """What has become of the run in a folder; None if nothing tells."""
    try:
        values = read_json(folder / STATUS, LARGEST_STATUS)
        status = Status(str(values["state"]), values["message"], values["exit_code"])
    except (OSError, ValueError, KeyError):
        return None
    return Status("interrupted") if status.state == "running" and not _is_held(folder) else status


def state_of(folder: Path, step: float | None, steps: float | None) -> str:
    """What has become of a run; of a folder from before there was a `status.json`, as far as its rows tell.

    Args:
        folder: of the run.
        step: of its newest row.
        steps: that its config asks for.
    """
    status = status_of(folder)
    if status is not None:
        return status.state
    return "finished" if step is not None and steps is not None and step >= steps else "stopped"


def _is_held(folder: Path) -> bool:
    """Whether a process trains there; one on another machine is believed where the file system shares its locks."""
    file = folder / ".lock"
    if not file.is_file():
        return False
    try:
        with FileLock(file).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that is not for us to write to
        return False


def status_after(error: BaseException | None, typed: Iterable[str] = ()) -> Status:
    """What becomes of a run that ends with an error, or with none; what was typed for it may name secrets."""
    if error is None:
        return Status("finished", exit_code=0)
    if isinstance(error, StopRequested):
        return Status("stopped", f"Stopped by {error}; what was finished is saved.", StoppedError.exit_code)
    states = {DivergedError: "diverged", StoppedError: "stopped", PrunedError: "pruned"}
    state = next((state for kind, state in states.items() if isinstance(error, kind)), "failed")
    return Status(state, without_secrets(str(error), typed), error.exit_code if isinstance(error, VQGANError) else 1)


def to_json(status: Status) -> str:
    """As it stands in `status.json`."""
    return json.dumps(asdict(status), ensure_ascii=False)
