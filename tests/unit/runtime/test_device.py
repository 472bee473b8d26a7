"""What is asked of the hardware: exactly float32, where that is promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Compose
from tests.support.networks import BACKBONE, vector_quantizer
from tests.unit.evaluation.test_evaluator import Dimmed, clips, evaluator
from vqgan.autoencoder import Autoencoder, AutoencoderOutput
from vqgan.backbones import Convolutional, Memory
from vqgan.evaluation import figures
from vqgan.frames import to_frames
from vqgan.measures import ssim
from vqgan.runs.provenance import environment
from vqgan.runtime.device import Precision, running_in, tune
from vqgan.tokenizer.inference import InferenceSettings, encode_batch
from vqgan.training.validation import evaluate
from vqgan.training.wiring import make_trainer

CPU = torch.device("cpu")


def rounds() -> bool:
    """Whether convolutions on NVIDIA GPUs would round to TF32; torch's older and newer flags must agree."""
    newer = torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert torch.backends.cudnn.allow_tf32 is newer
    assert torch.backends.cuda.matmul.allow_tf32 is (torch.backends.cuda.matmul.fp32_precision == "tf32")
    return newer


@pytest.fixture(autouse=True)
def _as_torch_starts() -> Iterator[None]:
    """A process whose convolutions may round, and, as in some containers, products of matrices too."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    yield
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


@pytest.mark.parametrize(("precision", "may_round"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_training_rounds_convolutions_only_if_asked_to(precision: Precision, may_round: bool) -> None:
    tune(CPU, precision)
    assert rounds() is may_round
    assert not torch.backends.cuda.matmul.allow_tf32, "the nearest code is found by a product"


@pytest.mark.parametrize(("precision", "may_round"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_tokenizers_work_in_their_precision_and_leave_the_process_as_it_was(
    precision: Precision, may_round: bool
) -> None:
    class Watching(Autoencoder):
        def quantize(self, frames: Tensor, memory: Memory | None = None) -> AutoencoderOutput:
            seen.append((rounds(), torch.backends.cuda.matmul.allow_tf32, torch.is_autocast_enabled("cpu")))
            return super().quantize(frames, memory)

    seen: list[tuple[bool, bool, bool]] = []
    tokenizer = Watching(Convolutional(**BACKBONE), vector_quantizer(16)).eval()
    encode_batch(tokenizer, torch.zeros(1, 16, 16, 3, dtype=torch.uint8), InferenceSettings(1, precision), Memory())
    assert seen == [(may_round, False, precision == "bf16")]
    assert rounds()
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("precision", "may_round"), [("fp32", False), ("tf32", True)])
def test_an_evaluation_measures_in_float32(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, may_round: bool
) -> None:
    class Watching(Dimmed):
        def forward(self, frames: Tensor) -> AutoencoderOutput:
            seen.add(("tokenizer", rounds()))
            return super().forward(frames)

    def measure(*arguments: object) -> dict[str, Tensor]:
        seen.add(("measures", rounds()))
        return original(*arguments)

    seen: set[tuple[str, bool]] = set()
    original = figures.measure
    monkeypatch.setattr("vqgan.evaluation.figures.measure", measure)
    evaluator(precision=precision).measure(Watching(), clips(2))
    assert seen == {("tokenizer", may_round), ("measures", False)}
    assert rounds()


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_validation_measures_in_float32_whatever_the_network_runs_in(precision: Precision) -> None:
    class Perceptual(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            assert not rounds()
            assert torch.matmul(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float32
            return (a - b).mean(dim=(1, 2, 3))

    still = torch.stack([clip for _, clip in clips(2)]) // 8 + 200  # smooth and bright: variances are small
    exact = evaluate(Dimmed(), still, 2, Perceptual())
    with running_in(precision, CPU):
        measured = evaluate(Dimmed(), still, 2, Perceptual())
    assert measured.metrics == exact.metrics
    assert float(ssim(to_frames(still), to_frames(still) * 0.9).mean()) == exact.metrics["validation/ssim"]


def test_the_environment_tells_how_a_gpu_convolves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    key, gpu = "float32 convolutions", torch.device("cuda")
    assert environment(gpu, "tf32")[key] == "TF32"
    assert environment(gpu, "fp32")[key] == "IEEE"
    assert key not in environment(CPU, "fp32"), "a CPU has no choice"


@pytest.mark.parametrize(("precision", "may_round"), [("fp32", False), ("tf32", True)])
def test_a_run_is_tuned_to_its_precision(
    composed: Compose, tmp_path: Path, precision: Precision, may_round: bool
) -> None:
    (tmp_path / "run").mkdir()
    trainer = make_trainer(composed(f"trainer.precision={precision}"), tmp_path / "run")
    assert rounds() is may_round
    assert trainer.provenance.config["trainer.precision"] == precision
