"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.conftest import Compose
from tests.integration.training.test_training import rows
from vqgan.config.build import conf_dir
from vqgan.quantizers.assignment import nearest
from vqgan.runs.checkpoint import read
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

MODELS = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))
ON_GPU = ("trainer.device=cuda", "loss.discriminator_start=0", "trainer.discriminator_every=1")


@contextmanager
def no_waiting() -> Iterator[None]:
    """Make every operation that waits for the device an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_in_a_step_waits_for_the_device(composed: Compose, tmp_path: Path, model: str, precision: str) -> None:
    (tmp_path / "run").mkdir()
    config = composed(*ON_GPU, f"model={model}", f"trainer.precision={precision}", "trainer.clip_gradients=1")
    trainer = make_trainer(config, tmp_path / "run")
    clips = torch.randint(256, (2, *trainer.journal.validation.clips.shape[1:]), dtype=torch.uint8).pin_memory()
    for step in range(2):  # what starts from data does so here
        trainer.step(step, [clips])
    with no_waiting():
        metrics = trainer.step(2, [clips]).metrics
    assert metrics["train/total"].isfinite()


@pytest.mark.parametrize("model", MODELS)
def test_a_run_learns_saves_and_goes_on(composed: Compose, tmp_path: Path, model: str) -> None:
    values = (*ON_GPU, f"model={model}", "trainer.log_every=1", "data.workers=1", "trainer.precision=bf16")
    run(composed(*values, "trainer.steps=4", "trainer.checkpoint_every=2"))
    trainer = run(composed(*values, "trainer.steps=8", "trainer.checkpoint_every=2"))
    assert trainer.autoencoder.last_layer.is_cuda
    logged = rows(tmp_path / "run")
    assert [row["step"] for row in logged] == list(range(9))
    step, state = read(tmp_path / "run" / "checkpoints" / "latest")
    assert step == 8
    for name, value in trainer.autoencoder.state_dict().items():
        assert torch.equal(state["autoencoder"][name], value.cpu()), name


def test_a_step_that_is_not_finite_is_skipped_on_the_device(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trainer = make_trainer(composed(*ON_GPU, "model=emavq"), tmp_path / "run")
    clips = torch.randint(256, (2, *trainer.journal.validation.clips.shape[1:]), dtype=torch.uint8)
    outcomes = [trainer.step(0, [clips])]
    before = {name: value.clone() for name, value in trainer.autoencoder.state_dict().items()}
    hook = trainer.autoencoder.quant_conv.register_forward_hook(lambda _, __, out: out * float("nan"))
    outcomes.append(trainer.step(1, [clips]))
    hook.remove()
    assert all(torch.equal(before[name], value) for name, value in trainer.autoencoder.state_dict().items())
    assert [bool(outcome.finite) for outcome in outcomes] == [True, False]


@pytest.mark.parametrize("dimension", [8, 256])
def test_the_largest_codebook_takes_little_memory(dimension: int) -> None:
    z = torch.randn(65536, dimension, device="cuda")
    codebook = torch.randn(262144, dimension, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    indices = nearest(z, codebook)
    assert torch.cuda.max_memory_allocated() - before <= 256 * 2**20
    some = slice(0, 500)
    distances = torch.cdist(z[some].double(), codebook.double())
    chosen = distances.gather(1, indices[some, None])[:, 0]
    torch.testing.assert_close(chosen, distances.min(1).values, rtol=1e-5, atol=1e-5)
