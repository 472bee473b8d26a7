"""What every logger is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqgan.runs.metrics import HOURS


@dataclass(frozen=True)
class Advice:
    """One warning. It speaks of numbers and yaml keys alone, never of files or frames: private runs may send it."""

    step: int  # finished ones
    name: str  # of the rule
    text: str  # one sentence

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")


class Logger(ABC):
    """Takes what a run measures.

    A constructor takes, beside its own values, `folder`, the run folder; `config`, the run's values without secrets;
    and `private`, whether nothing that tells of the data may leave the machine. Nothing is opened before the first
    `log`, so that a resumed run can first be told its state.
    """

    @abstractmethod
    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Take scalars, named `panel/name`, and pictures (png) and clips (mp4) as files, of one finished step."""

    def advise(self, advice: Advice) -> None:  # noqa: B027  # nothing to do where nobody would see it
        """Take a warning that teaches, after the row that it is drawn from."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on in the same place."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  # nothing to do unless there is state
        """Go on where the state was saved."""

    def close(self, error: BaseException | None = None) -> None:  # noqa: B027  # nothing to do unless it has opened
        """Finish; called once. `error` is what ended the run early; a process that was told to stop has seconds."""

    def summary(self) -> tuple[str, str] | None:
        """What a person should read at the end of the run: a name and a text, or nothing."""
        return None


class Loggers(Logger):
    """Several loggers as one. It adds the scalar `speed/hours`, for an axis of time that stops and repeats do not bend.

    These are hours of training, from the first step on; those after the checkpoint that a run goes on from do not
    count, like their steps.
    """

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self.loggers = loggers
        self.hours_before, self.began = 0.0, time.monotonic()

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Tell all of them."""
        row = {**scalars, HOURS: round(self._hours(), 6)}
        for logger in self.loggers.values():
            logger.log(step, row, files)

    def advise(self, advice: Advice) -> None:
        """Tell all of them."""
        for logger in self.loggers.values():
            logger.advise(advice)

    def state_dict(self) -> dict[str, Any]:
        """Each one's state, by name, and the hours."""
        return {HOURS: self._hours(), **{name: logger.state_dict() for name, logger in self.loggers.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each its state; one that was not there before, or in a run without a checkpoint, has none."""
        self.hours_before, self.began = float(state.get(HOURS, 0.0)), time.monotonic()
        for name, logger in self.loggers.items():
            logger.load_state_dict(state.get(name, {}))

    def close(self, error: BaseException | None = None) -> None:
        """Close all of them."""
        for logger in self.loggers.values():
            logger.close(error)

    def summaries(self) -> list[tuple[str, str]]:
        """What all of them want to be read."""
        return [said for logger in self.loggers.values() if (said := logger.summary()) is not None]

    def _hours(self) -> float:
        return self.hours_before + (time.monotonic() - self.began) / 3600
