"""A run with an average of weights is measured, exported and used with it, and goes on with it exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vqgan
from tests.conftest import small_config
from tests.support.processes import together
from tests.support.runs import rows
from vqgan.evaluation.subject import open_subject
from vqgan.runs.checkpoint import read
from vqgan.runtime.process import this_process
from vqgan.tokenizer.export import export
from vqgan.tokenizer.folder import load_weights
from vqgan.training.run import run
from vqgan.training.validation import evaluate
from vqgan.training.wiring import make_trainer

pytestmark = pytest.mark.slow

VALUES = ("trainer.weight_average=0.2", "trainer.log_every=1", "trainer.checkpoint_every=2", "optimizer.lr=0.01")


def newest(folder: Path) -> dict[str, Any]:
    return read((folder / "checkpoints" / "latest").resolve())[1]


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.mark.parametrize("model", ["vqmodel", "emavq"])
def test_what_is_used_of_a_run_is_the_average(model: str, tmp_path: Path) -> None:
    config = small_config(tmp_path, f"model={model}", "trainer.steps=6", "trainer.evaluate_every=6", *VALUES)
    trainer = run(config)
    folder, state = tmp_path / "run", newest(tmp_path / "run")
    average, trained = state["autoencoder_average"], state["autoencoder"]
    differing = differ(average, trained)
    assert {"quantizer.codebook", "encoder.conv_in.weight"} <= differing
    assert "quantizer.idle" not in differing
    # Measured …
    measured = trainer.step.autoencoder.measured
    expected = evaluate(measured, trainer.journal.validation.clips, 2, None).metrics
    logged = rows(folder)[-1]
    assert {name: logged[name] for name in expected} == expected
    assert expected != evaluate(trainer.autoencoder, trainer.journal.validation.clips, 2, None).metrics
    # … loaded, exported, evaluated, and started with.
    export(folder, tmp_path / "export", "safetensors")
    found = [vqgan.load(folder), vqgan.load(tmp_path / "export"), open_subject(str(folder)).network]
    start = make_trainer(small_config(tmp_path / "next", f"model={model}"), tmp_path)
    load_weights(str(folder), start.autoencoder, None)
    for network in [*found, start.autoencoder]:
        assert not differ(network.state_dict(), average)


@pytest.mark.parametrize("choice", [("model=vqmodel", "optimizer=muon"), ("model=emavq",)])
def test_the_average_goes_on_exactly(choice: tuple[str, ...], tmp_path: Path) -> None:
    values = (*choice, *VALUES)
    run(small_config(tmp_path / "whole", *values, "trainer.steps=4"))
    for steps in (2, 4):
        run(small_config(tmp_path / "parts", *values, f"trainer.steps={steps}"))
    states = [newest(tmp_path / name / "run") for name in ("whole", "parts")]
    for part in ("autoencoder", "autoencoder_average"):
        assert not differ(states[0][part], states[1][part])


def averaged(folder: Path) -> dict[str, Tensor]:
    """The average after three steps."""
    config = small_config(folder, "model=emavq", "data.videos=4", "data.video_frames=8", VALUES[0])
    trainer = make_trainer(config, folder, this_process())
    batches = trainer.loader.batches(0)
    for step in range(3):
        trainer.step(step, [next(batches)])
    return trainer.step.autoencoder.measured.state_dict()


@pytest.mark.slow
def test_two_processes_have_the_average_of_one(tmp_path: Path) -> None:
    first, second = together(2, averaged, tmp_path / "two")
    alone = averaged(tmp_path / "one")
    assert not differ(first, second)
    for name, value in alone.items():
        # Adam makes a whole step of a gradient that is all rounding.
        torch.testing.assert_close(first[name].double(), value.double(), rtol=1e-2, atol=1e-2)
