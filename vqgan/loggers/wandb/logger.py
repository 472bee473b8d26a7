"""Weights & Biases, in a process of its own: whatever becomes of it, training does not notice."""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vqgan.config.keys import NOT_SHOWN
from vqgan.errors import DivergedError, StoppedError, exit_code_of
from vqgan.files.reading import is_inside
from vqgan.files.writing import storing
from vqgan.loggers.best import Best
from vqgan.loggers.logger import Advice, Logger
from vqgan.loggers.wandb.artifacts import best_checkpoint, exported, size_of
from vqgan.loggers.wandb.identity import choices, name_of, sweep_of, tags_of
from vqgan.loggers.wandb.pipe import end, pass_on
from vqgan.runs.criterion import criterion_in
from vqgan.runs.metrics import HOURS
from vqgan.runs.saved import typed_for
from vqgan.text import without_secrets

MOST_WAITING = 10_000  # rows that the process may be behind before they are dropped
PATIENCE, HURRY = 60.0, 3.0  # seconds that the end of a run waits for uploads; the second if it was stopped or failed
SLOWEST_UPLOAD = 10**6  # bytes a second, of the files that were to be uploaded
FIRST_TABLE, MOST_PICTURES = 4, 100  # evaluations in the first table, and shown in the largest one
# Names of values that are not for others to see, in whichever section; the fingerprint is the data's own name.
HIDDEN = {*(key.rpartition(".")[2] for key in NOT_SHOWN), "data_fingerprint"}
STATUS, LOG, STEPS, EXPORTED = "status.json", "process.log", "steps.json", "tokenizer"  # in the run folder's wandb/


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
        group: of runs that belong together; null for the folder of a multirun, and none for a run on its own.
        tags: of the run, beside those that say which model, backbone, data, experiment and sweep were chosen.
        mode: `auto` is what `WANDB_MODE` says, else online when logged in (`WANDB_API_KEY`, or `wandb login`), and
            offline otherwise; `online` and `offline` insist. What cannot be reached is kept offline, to be uploaded
            later with `wandb sync`.
        upload: what becomes of the best checkpoint when the run ends: `reference` notes where it lies, `upload` copies
            it to W&B, with the tokenizer as `vqgan export` writes it, `none` says nothing of it.
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
        upload: Literal["reference", "upload", "none"],
    ) -> None:
        self.run, self.folder, self.private, self.upload = folder, folder / "wandb", private, upload
        self.config, self.tags, self.group = dict(config), tags, group
        self.settings = {"dir": str(folder), "project": project, "entity": entity, "mode": mode}
        self.id: str | None = None
        self.choices: dict[str, str] = {}
        self.best = Best(criterion_in(config))
        self.evaluations: list[dict[str, Any]] = []  # rows of the table of reconstructions
        self.process: subprocess.Popen[bytes] | None = None
        self.rows: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self.warned = False

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Pass one step on; pictures as images, clips as videos, and now and then all pictures as a table."""
        media = {} if self.private else {name: str(file) for name, file in files.items()}
        best = self.best.look(step, scalars)
        self._send({"kind": "step", "step": step, "scalars": dict(scalars), "files": media, "best": best})
        picture = next((file for file in files.values() if file.suffix == ".png"), None)
        if best and picture is not None and not self.private:
            measured = {name: value for name, value in scalars.items() if name.startswith("validation/")}
            file = os.path.relpath(picture, self.run)
            self.evaluations.append({"step": step, "hours": scalars.get(HOURS), "file": file, **measured})
            count = len(self.evaluations)
            is_due = count >= FIRST_TABLE and count & (count - 1) == 0  # powers of two: a table is uploaded as a whole
            if is_due and self._status().get("url"):
                self._send(self._table())

    def advise(self, advice: Advice) -> None:
        """Pass it on as an alert, in a private run too: it speaks of numbers and settings alone."""
        self._send(_alert(advice.title, f"Step {advice.step}: {advice.text}", "WARN"))

    def state_dict(self) -> dict[str, Any]:
        """The run's id, what it is tagged with, its best values, and what its table shows."""
        evaluations = [dict(row) for row in self.evaluations]
        return {"id": self.id, "choices": self.choices, "best": self.best.state_dict(), "evaluations": evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue that run."""
        self.id, self.choices = state.get("id"), dict(state.get("choices", {}))
        self.best.load_state_dict(state.get("best", {}))
        self.evaluations = [dict(row) for row in state.get("evaluations", [])]

    def close(self, error: BaseException | None = None) -> None:
        """Pass on how the run ended and what came of it, let the process finish, and end it if it does not."""
        if self.process is None:
            return
        hurried = exit_code_of(error) not in (0, DivergedError.exit_code)  # of other ends nobody waits for the upload
        artifacts = [] if self.private or self.upload == "none" else self._artifacts(hurried)
        for row in [self._table(), *artifacts, *self._farewell(error)]:
            self._put(row)
        with_room = self._put(None)
        patience = PATIENCE + sum(size_of(Path(row["folder"])) for row in artifacts if row["copied"]) / SLOWEST_UPLOAD
        try:
            self.process.wait(HURRY)
        except subprocess.TimeoutExpired:
            if with_room and not hurried:
                print(f"Weights & Biases is not done yet; waiting for {patience:.0f} seconds at most.", flush=True)
            try:
                self.process.wait(0 if hurried or not with_room else patience)
            except subprocess.TimeoutExpired:
                end(self.process)
                self._warn("Weights & Biases did not finish")
        self._look_after()
        if self.process.returncode == 0 and self._status().get("url"):
            shutil.rmtree(self.folder / EXPORTED, ignore_errors=True)  # it is uploaded
        self.process = None

    def summary(self) -> tuple[str, str] | None:
        """Where the run is kept, and how to upload it."""
        status = self._status()
        if status.get("url"):
            return "W&B", status["url"]
        if status.get("directory"):
            return "W&B", f"offline; upload with: wandb sync {self.folder}"
        return None

    def _table(self) -> dict[str, Any]:
        """The table of reconstructions: a row for each evaluation, or for some, spread over all."""
        rows = self.evaluations[:: -(-len(self.evaluations) // MOST_PICTURES) or 1]
        shown = [
            {**row, "file": str(self.run / row["file"])} for row in rows if is_inside(self.run, self.run / row["file"])
        ]
        return {"kind": "table", "rows": shown}

    def _artifacts(self, hurried: bool) -> list[dict[str, Any]]:
        """The best checkpoint, and the tokenizer if it is to be uploaded and there is time."""
        checkpoint = best_checkpoint(self.run)
        if checkpoint is None:
            return []
        if self.upload == "reference" or hurried:
            return [checkpoint]
        if "prior" in self.config:  # which is no tokenizer to export
            return [checkpoint | {"copied": True}]
        try:
            tokenizer = exported(self.run, self.folder / EXPORTED, checkpoint)
        except Exception as error:  # whatever it is, the run is done and its checkpoint is good
            self._warn(f"The tokenizer is not uploaded to Weights & Biases ({error})")
            return [checkpoint | {"copied": True}]
        return [checkpoint | {"copied": True}, tokenizer]

    def _farewell(self, error: BaseException | None) -> list[dict[str, Any]]:
        end = {"kind": "end", "exit_code": exit_code_of(error), "goes_on": isinstance(error, StoppedError)}
        if not isinstance(error, DivergedError):
            return [end]
        why = "Its own status.json says why." if self.private else without_secrets(str(error), typed_for(self.run))
        return [_alert("training diverged", why, "ERROR"), end]

    def _send(self, row: dict[str, Any]) -> None:
        if self.process is None:
            self._start()
        if not self._put(row):
            self._warn("Weights & Biases takes no more rows")
        self._look_after()

    def _put(self, row: dict[str, Any] | None) -> bool:
        """Whether there is room for it."""
        try:
            self.rows.put_nowait(None if row is None else json.dumps(row))
        except queue.Full:
            return False
        return True

    def _introduction(self) -> dict[str, Any]:
        """What the process is told first: which run it is. Of a private one no name, and nothing drawn from names."""
        self.choices |= choices()
        sweep = sweep_of(self.run)
        said = self.settings | {
            "id": self.id, "pid": os.getpid(), "private": self.private, "status": str(self.folder / STATUS),
            "steps": str(self.folder / STEPS), "best": list(self.best.names),
            "job_type": "sweep" if sweep or "WANDB_SWEEP_ID" in os.environ else "train",
        }  # fmt: skip
        if self.private:
            shown = without_names(self.config)
            return said | {"name": "private", "group": self.group, "tags": self.tags, "config": shown}
        return said | {
            "name": os.environ.get("WANDB_NAME") or name_of(self.run),
            "group": self.group or os.environ.get("WANDB_RUN_GROUP") or sweep,
            "tags": [*self.tags, *tags_of(self.choices)],
            "config": self.config | {"choices": self.choices},
        }

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
                [sys.executable, "-P", str(Path(__file__).with_name("process.py"))],
                # A service of its own: one that another wandb of this process has started would be shared by this name.
                env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the training process, which ends this one
            )
        self._put(self._introduction())
        threading.Thread(target=pass_on, args=(self.rows, self.process), daemon=True).start()

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
            offline = self._status().get("directory")
            later = f", and `wandb sync {self.folder}` uploads what it has" if offline else ""
            warnings.warn(
                f"{what}. Training goes on; metrics.jsonl has all rows{later}. See {self.folder / LOG}.", stacklevel=3
            )


def without_names(values: Any) -> Any:
    """The values of nested sections without names and paths."""
    if isinstance(values, Mapping):
        return {key: without_names(value) for key, value in values.items() if key not in HIDDEN}
    return "private" if isinstance(values, str) and os.sep in values else values


def _alert(title: str, text: str, level: str) -> dict[str, Any]:
    return {"kind": "alert", "title": title, "text": text, "level": level}
