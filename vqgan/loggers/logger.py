"""What every logger is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqgan.advice import Advice


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

    def close(self, hurried: bool = False) -> None:  # noqa: B027  # nothing to do unless something was opened
        """Finish; called once, also after an error. `hurried`: the process was told to stop, so within seconds."""

    def summary(self) -> tuple[str, str] | None:
        """What a person should read at the end of the run: a name and a text, or nothing."""
        return None


class Loggers(Logger):
    """Several loggers as one."""

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self.loggers = loggers

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Tell all of them."""
        for logger in self.loggers.values():
            logger.log(step, scalars, files)

    def advise(self, advice: Advice) -> None:
        """Tell all of them."""
        for logger in self.loggers.values():
            logger.advise(advice)

    def state_dict(self) -> dict[str, Any]:
        """Each one's state, by name."""
        return {name: logger.state_dict() for name, logger in self.loggers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each its state; one that was not there before, or in a run without a checkpoint, has none."""
        for name, logger in self.loggers.items():
            logger.load_state_dict(state.get(name, {}))

    def close(self, hurried: bool = False) -> None:
        """Close all of them."""
        for logger in self.loggers.values():
            logger.close(hurried)

    def summaries(self) -> list[tuple[str, str]]:
        """What all of them want to be read."""
        return [said for logger in self.loggers.values() if (said := logger.summary()) is not None]
