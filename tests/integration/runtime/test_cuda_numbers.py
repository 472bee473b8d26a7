"""A GPU computes what the processor does, the same each time; skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.conftest import Compose
from tests.support.runs import flat, rows, train
from vqgan.config.build import build, conf_dir
from vqgan.runs.checkpoint import read
from vqgan.training.player import Player
from vqgan.training.run import run
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS looks when it first runs
DEVICE = "cuda"
MODELS = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))
ADVERSARIAL = ("loss.discriminator_start=0", "trainer.discriminator_every=1")


@pytest.fixture
def _deterministic() -> Iterator[None]:
    """Sums in one order; without it a codebook's gradient is added up as the GPU's blocks come."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def trainer_of(composed: Compose, folder: Path, *overrides: str) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    return make_trainer(composed(*ADVERSARIAL, *overrides), folder)


def clips_of(trainer: Trainer) -> Tensor:
    shape = (2, *trainer.journal.validation.clips.shape[1:])
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def gradients(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Of both players in the first step, which moves nothing."""
    kept: dict[str, Tensor] = {}

    def keep(self: Player[Any], step: int, finite: Tensor) -> None:
        kept.update({
            f"{type(self.network).__name__}.{name}": parameter.grad.detach().cpu().clone()
            for name, parameter in self.network.named_parameters() if parameter.grad is not None
        })  # fmt: skip

    monkeypatch.setattr(Player, "update", keep)
    trainer.step(0, [clips_of(trainer)])
    return kept


def alike(found: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    """No difference larger than that share of a gradient's norm; a weight before a norm has none but noise."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    assert largest > 0
    for name, gradient in expected.items():
        difference = float((found[name] - gradient).norm())
        assert difference <= share * float(gradient.norm()) + 1e-4 * largest, name


def same_start(found: Trainer, expected: Trainer) -> None:
    for mine, other in zip(found.step.players, expected.step.players, strict=True):
        mine.network.load_state_dict(other.network.state_dict())


@pytest.mark.parametrize("model", ["vqmodel", "emavq", "fsq", "bsq"])
@pytest.mark.parametrize("layout", ["true", "false"])
def test_a_step_has_the_processors_gradients(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, layout: str
) -> None:
    values = (f"model={model}", "trainer.precision=fp32")
    expected = trainer_of(composed, tmp_path / "cpu", *values, "trainer.device=cpu", "trainer.channels_last=false")
    found = trainer_of(
        composed, tmp_path / "gpu", *values, f"trainer.device={DEVICE}", f"trainer.channels_last={layout}"
    )
    same_start(found, expected)
    alike(gradients(found, monkeypatch), gradients(expected, monkeypatch), 1e-2)


def test_compiled_training_has_the_same_losses(tmp_path: Path) -> None:
    """In processes of their own: what is compiled cannot have its shapes checked."""
    values = (f"trainer.device={DEVICE}", "trainer.precision=fp32", "trainer.steps=2", *ADVERSARIAL)
    for compiled in ("true", "false"):
        train(tmp_path / compiled, *values, f"trainer.compile={compiled}")
    losses = [
        [row["train/total"] for row in rows(tmp_path / name) if "train/total" in row] for name in ("true", "false")
    ]
    assert len(losses[1]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_half_precision_is_near(composed: Compose, tmp_path: Path) -> None:
    values = ("model=vqmodel", f"trainer.device={DEVICE}")
    totals = []
    for precision in ("fp32", "bf16"):
        trainer = trainer_of(composed, tmp_path / precision, *values, f"trainer.precision={precision}")
        totals.append(float(trainer.step(0, [clips_of(trainer)]).metrics["train/pixel"]))
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_codes_are_the_processors_and_so_are_their_pictures(composed: Compose, tmp_path: Path, model: str) -> None:
    values = (f"model={model}", "trainer.precision=fp32")
    ours = trainer_of(composed, tmp_path / "cpu", *values, "trainer.device=cpu")
    theirs = trainer_of(composed, tmp_path / "gpu", *values, f"trainer.device={DEVICE}")
    same_start(theirs, ours)
    cpu, gpu = ours.autoencoder.eval(), theirs.autoencoder.eval()
    frames = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        codes, others = cpu.encode(frames), gpu.encode(frames.to(DEVICE)).cpu()
        # A latent between two codes may go either way, by a difference in its last bit.
        assert float((codes == others).float().mean()) >= 0.98
        torch.testing.assert_close(gpu.decode(codes.to(DEVICE)).cpu(), cpu.decode(codes), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("model", ["emavq", "fsq"])
def test_going_on_is_bit_for_bit_the_same(composed: Compose, tmp_path: Path, model: str) -> None:
    common = (*ADVERSARIAL, f"trainer.device={DEVICE}", f"model={model}", "trainer.checkpoint_every=2",
              "trainer.evaluate_every=2")  # fmt: skip
    states = []
    for name, stops in (("whole", (4,)), ("in two", (2, 4))):
        folder = tmp_path / name
        for stop in stops:
            run(composed(*common, f"trainer.steps={stop}", f"run_dir='{folder}'"))
        state = read(folder / "checkpoints" / "latest")[1]
        states.append(dict(flat({part: state[part] for part in state if part in ("autoencoder", "discriminator")})))
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_checkpoint_of_a_gpu_goes_on_on_the_processor(composed: Compose, tmp_path: Path) -> None:
    values = (*ADVERSARIAL, "model=emavq", "trainer.checkpoint_every=2")
    run(composed(*values, f"trainer.device={DEVICE}", "trainer.steps=2"))
    state = read(tmp_path / "run" / "checkpoints" / "latest")[1]
    assert {value.device.type for _, value in flat(state) if isinstance(value, Tensor)} == {"cpu"}
    trainer = run(composed(*values, "trainer.device=cpu", "trainer.steps=4"))
    assert trainer.done == 4


@pytest.mark.parametrize("model", ["fsq", "lfq", "bsq"])
def test_codes_without_a_table_take_memory_for_latents_only(model: str) -> None:
    """Of 2^18 codes, 16384 latents' distances would be 16 GiB."""
    values = OmegaConf.load(conf_dir() / "model" / f"{model}.yaml").quantizer
    if model == "fsq":
        values.levels = [8, 8, 8, 8, 8, 8]
    else:
        values.codebook_size = 2**18
    quantizer = build(values, "model.quantizer").to(DEVICE)
    latents = torch.randn(16, quantizer.latent_dim, 32, 32, device=DEVICE, requires_grad=True)
    quantizer(latents)  # whatever is made once is there
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    quantized = quantizer(latents)
    (quantized.latents.sum() + quantized.loss).backward()
    assert torch.cuda.max_memory_allocated() - before <= 256 * 2**20
