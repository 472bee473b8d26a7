"""Weights & Biases, in a process of its own: whatever becomes of it, training does not notice."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vqgan.advice import Advice
from vqgan.errors import storing
from vqgan.loggers.logger import Logger

MOST_WAITING = 10_000  # rows that the process may be behind before they are dropped
PATIENCE, HURRY = 60.0, 3.0  # seconds that the end of a run waits for uploads; the second if it was told to stop
STATUS, LOG = "status.json", "process.log"  # in the run folder's wandb/


class WeightsAndBiases(Logger):
    """A W&B run per training run, its files below the run folder's `wandb/`; a resumed run continues it.

    Rows go through a pipe to `wandb_process.py`, which alone imports wandb. If that is slow, dies or hangs, training
    goes on at its speed and with its numbers, a warning says so once, and `metrics.jsonl` has every row.

    Args:
        folder: the run folder.
        config: the run's values, shown and filterable in W&B.
        private: nothing of the data goes there: no pictures, names or paths, nor what machine or code it is.
        project: of W&B.
        entity: user or team; null for the default one.
        group: of runs that belong together; null for none.
        tags: of the run.
        mode: `auto` is what `WANDB_MODE` says, else online when logged in (`WANDB_API_KEY`, or `wandb login`), and
            offline otherwise; `online` and `offline` insist. What cannot be reached is kept offline, to be uploaded
            later with `wandb sync`.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        private: bool,
        project: str,
        entity: str | None,
        group: str | None,
        tags: list[str],
        mode: Literal["auto", "online", "offline"],
    ) -> None:
        self.folder, self.private = folder / "wandb", private
        self.settings = {
            "dir": str(folder),
            "config": dict(config),
            "private": private,
            "name": None if private else "/".join(folder.parts[-2:]),
            "project": project,
            "entity": entity,
            "group": group,
            "tags": tags,
            "mode": mode,
        }
        self.id: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.rows: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self.warned = False

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Pass one step on; pictures as images, clips as videos."""
        media = {} if self.private else {name: str(file) for name, file in files.items()}
        self._send({"step": step, "scalars": dict(scalars), "files": media})

    def advise(self, advice: Advice) -> None:
        """Pass it on as an alert, in a private run too: it speaks of numbers and settings alone."""
        self._send({"title": advice.title, "text": f"Step {advice.step}: {advice.text}"})

    def state_dict(self) -> dict[str, Any]:
        """The run's id."""
        return {"id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue that run."""
        self.id = state.get("id")

    def close(self, hurried: bool = False) -> None:
        """Let the process finish, and end it if it does not."""
        if self.process is None:
            return
        with_room = self.rows.qsize() < MOST_WAITING
        if with_room:
            self.rows.put(None)
        try:
            self.process.wait(HURRY)
        except subprocess.TimeoutExpired:
            if with_room and not hurried:
                print(f"Weights & Biases is not done yet; waiting for {PATIENCE:.0f} seconds at most.", flush=True)
            try:
                self.process.wait(0 if hurried or not with_room else PATIENCE)
            except subprocess.TimeoutExpired:
                self._end()
                self._warn("Weights & Biases did not finish")
        self._look_after()
        self.process = None

    def summary(self) -> tuple[str, str] | None:
        """Where the run is kept, and how to upload it."""
        status = self._status()
        if status.get("url"):
            return "W&B", status["url"]
        if status.get("directory"):
            return "W&B", f"offline; upload with: wandb sync {status['directory']}"
        return None

    def _send(self, row: dict[str, Any]) -> None:
        if self.process is None:
            self._start()
        try:
            self.rows.put_nowait(json.dumps(row))
        except queue.Full:
            self._warn("Weights & Biases takes no more rows")
        self._look_after()

    def _start(self) -> None:
        # Under `wandb agent` the run has an id already.
        self.id = os.environ.get("WANDB_RUN_ID") or self.id or secrets.token_hex(4)
        with storing(self.folder):
            self.folder.mkdir(exist_ok=True)
            (self.folder / STATUS).unlink(missing_ok=True)
            log = (self.folder / LOG).open("ab")
        with log:
            self.process = subprocess.Popen(
                # -P: else this folder's wandb.py would stand before the package
                [sys.executable, "-P", str(Path(__file__).with_name("wandb_process.py"))],
                # A service of its own: one that another wandb of this process has started would be shared by this name.
                env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the training process, which ends this one
            )
        self.rows.put(json.dumps({**self.settings, "id": self.id, "status": str(self.folder / STATUS)}))
        threading.Thread(target=_pass_on, args=(self.rows, self.process), daemon=True).start()

    def _look_after(self) -> None:
        assert self.process is not None
        if self.process.poll() not in (None, 0):
            self._warn("Weights & Biases has stopped")
        elif reason := self._status().get("reason"):
            self._warn(f"Weights & Biases cannot be used online ({reason}) and this run is kept offline")

    def _status(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.folder / STATUS).read_text()))
        except (OSError, ValueError):  # not there yet
            return {}

    def _warn(self, what: str) -> None:
        if not self.warned:
            self.warned = True
            directory = self._status().get("directory")
            later = f", and `wandb sync {directory}` uploads what it has" if directory else ""
            warnings.warn(
                f"{what}. Training goes on; metrics.jsonl has all rows{later}. See {self.folder / LOG}.", stacklevel=3
            )

    def _end(self) -> None:
        assert self.process is not None
        for pid in _below(self.process.pid):  # its service has a session of its own, and may be what hangs
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def _below(pid: int) -> list[int]:
    """All processes below one, as far as the system tells (Linux)."""
    try:
        files = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []
    return [*children, *(member for child in children for member in _below(child))]


def _pass_on(rows: queue.Queue[str | None], process: subprocess.Popen[bytes]) -> None:
    """Write rows to the process until None comes; a process that does not read stops this thread alone."""
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            while (row := rows.get()) is not None:
                pipe.write(row.encode() + b"\n")
                pipe.flush()
    except OSError:  # it died, which `log` notices by itself
        while rows.get() is not None:
            pass
