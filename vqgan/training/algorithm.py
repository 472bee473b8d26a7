"""What the loop needs to know of what it trains: a step, batches, and what is measured of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from vqgan.runs.checkpoint import Stateful
from vqgan.training.outcomes import Outcome
from vqgan.training.player import Player


class Algorithm(ABC):
    """One step of training, and all that it moves.

    Attributes:
        players: the networks that learn, and what moves them; the first one is measured.
        device: of the networks.
    """

    players: list[Player[Any]]
    device: torch.device

    @abstractmethod
    def __call__(self, number: int, batches: Sequence[Any]) -> Outcome:
        """Compute step `number`, counted from 0, on one batch per micro-batch; without effect if it is not finite.

        Every random choice is a function of the seed and the number. Nothing waits for the device.
        """

    @abstractmethod
    def undo(self) -> None:
        """Take back what a step that was broken off has changed before any player moved."""

    @abstractmethod
    def autocast(self) -> torch.autocast:
        """The precision of the networks."""

    @abstractmethod
    def state(self) -> dict[str, Stateful]:
        """All that changes in training, by its name in a checkpoint."""

    @abstractmethod
    def row(self, done: int) -> dict[str, float]:
        """What is logged after `done` steps beside the numbers of their outcomes."""

    @abstractmethod
    def frames(self, number: int, batches: Sequence[Any]) -> int:
        """How many step `number` sees of its batches."""

    @property
    def measured(self) -> nn.Module:
        """The network that is measured, shown and used."""
        measured: nn.Module = self.players[0].measured
        return measured


class Batches(Stateful, Protocol):
    """Batches without end, each a function of the seed and its number."""

    drawn: dict[int, list[dict[str, Any]]]  # by number, what the newest batches hold

    @property
    def share(self) -> int:
        """Clips of a batch that this process reads."""

    @property
    def reading_seconds(self) -> float:
        """Processor's seconds that reading has taken."""

    def batches(self, first: int) -> Generator[Any, None, None]:
        """This process's share of batches `first`, `first` + 1, …"""

    def exchange(self) -> None:
        """Let all processes know what each has found out of the data."""


class Measured(Protocol):
    """What was measured."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """By their names in the panel `validation/`."""


class Measures(Stateful, Protocol):
    """What is measured and shown at each evaluation; it changes no network."""

    def measure(self, network: Any) -> Any:
        """What was `Measured`, the same in all processes."""

    def show(self, network: Any, step: int, evaluation: Any) -> dict[str, Path]:
        """Write pictures; returns those that are logged, by name."""

    def record(self, step: int, evaluation: Any) -> None:
        """Keep what rows of metrics do not hold."""


class Advises(Stateful, Protocol):
    """What reads the numbers for signs of trouble."""

    given: list[Any]

    def look(self, step: int, row: Mapping[str, float]) -> list[Any]:
        """Take a row; returns the advice that is new."""
