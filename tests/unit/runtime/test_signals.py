"""Signals that tell a process to stop, wherever it is just then."""

from __future__ import annotations

import _weakrefset
import signal
import time
import weakref
from types import ModuleType

import pytest
import torch

from vqgan.runtime.signals import StopRequested, StopSignals

CUT_OFF = "signal.raise_signal(signal.SIGTERM); reached.append(True)"


@pytest.mark.parametrize(
    "module", [None, weakref, _weakrefset, torch.utils.weak], ids=lambda module: getattr(module, "__name__", "none")
)
def test_a_signal_where_an_error_would_be_lost_comes_again_a_moment_later(module: ModuleType | None) -> None:
    """At a frame of no module, as Cython runs one, and at those which forget a key of a weak dictionary."""
    reached: list[bool] = []
    named = {} if module is None else {"__name__": module.__name__}

    def work(stop: StopSignals) -> None:
        with stop.at_once():
            exec(CUT_OFF, {**named, "signal": signal, "reached": reached})
            for _ in range(200):
                time.sleep(0.01)

    with StopSignals() as stop, pytest.raises(StopRequested, match="SIGTERM"):
        work(stop)
    assert reached == [True], "nothing was raised there"
