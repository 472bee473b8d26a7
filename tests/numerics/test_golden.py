"""The reference's numbers, from latents to a whole two-player trajectory through our own trainer step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.numerics.reference import FOLDER, filled, inputs, ours
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.discriminators import PatchGAN
from vqgan.losses import L1, Adaptive, Hinge, Vanilla, VQGANLoss
from vqgan.quantizers import EMAQuantizer, Quantizer, VectorQuantizer
from vqgan.training.schedules import Constant
from vqgan.training.settings import Settings
from vqgan.training.step import Step
from vqgan.training.wiring import make_step

FILES = sorted(f for f in FOLDER.glob("*.json") if "config" in json.loads(f.read_text()))
FLOOR = 1e-6  # gradients that are zero by construction show as noise around 1e-8
DISCRIMINATOR = "loss.discriminator."
GAMES = {"hinge": Hinge, "vanilla": Vanilla}
METRICS = {
    "total_loss": "train/total",
    "quant_loss": "train/quantization",
    "rec_loss": "train/pixel",
    "nll_loss": "train/pixel",  # the same without a perceptual term
    "d_weight": "adversarial/weight",
    "g_loss": "train/adversarial",
    "perplexity": "codebook/perplexity",
    "disc_loss": "train/discriminator",
    "logits_real": "adversarial/logits_real",
    "logits_fake": "adversarial/logits_fake",
}


class Golden:
    """One reference run, and our networks with its weights."""

    def __init__(self, file: Path) -> None:
        described = json.loads(file.read_text())
        self.config: dict[str, Any] = described["config"]
        self.trajectory: list[dict[str, float]] = described["trajectory"]
        self.shapes: dict[str, list[int]] = described["state_shapes"]
        with np.load(file.with_suffix(".npz")) as arrays:
            self.arrays = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays}
        torch.manual_seed(0)
        self.autoencoder = Autoencoder(self._backbone(), self._quantizer())
        self.discriminator = self._discriminator()
        self._fill(self.autoencoder, "")
        self._fill(self.discriminator, DISCRIMINATOR)
        quantizer = self.autoencoder.quantizer
        if isinstance(quantizer, EMAQuantizer):
            quantizer.cluster_sizes.fill_(1.0)
            quantizer.cluster_sums.copy_(quantizer.codebook)

    def frames(self, step: int) -> Tensor:
        """The input of a step; 0 is the evaluation's."""
        sizes = self.config["ddconfig"]
        return inputs(self.config["batch"], sizes["in_channels"], sizes["resolution"], sizes["resolution"], step)

    def named(self, name: str) -> Tensor:
        """Our tensor for a name of the reference's."""
        if name.startswith(DISCRIMINATOR):
            return self.discriminator.state_dict()[name.removeprefix(DISCRIMINATOR)]
        return self.autoencoder.state_dict()[ours(name)]

    def step(self, loss: VQGANLoss) -> Step:
        """Our step on these networks."""
        adam = {"lr": self.config["lr"], "betas": (0.5, 0.9)}
        settings = Settings(
            steps=self.config["steps"], discriminator_every=self.config["disc_every"], accumulate=1,
            picture_share=0.0, clip_lengths=[], clip_gradients=None, weight_average=None, freeze=[], precision="fp32",
            allow_slow_precision=False, channels_last=True,
            activation_checkpointing=False, compile=False, device="cpu", log_every=1, evaluate_every=1,
            pictures=1, checkpoint_every=1, usage_steps=1, keep=1, max_skipped_in_a_row=0, max_skipped_fraction=0.0,
        )  # fmt: skip
        networks = (self.autoencoder, self.discriminator)
        players = [(network, torch.optim.Adam(network.parameters(), **adam)) for network in networks]
        return make_step(settings, loss, *players, Constant(0), seed=0)

    def loss(self) -> VQGANLoss:
        """The loss, without a perceptual term."""
        settings = self.config["loss"]
        return VQGANLoss(
            pixel=L1(1.0),
            perceptual_weight=0.0,
            perceptual=None,
            perceptual_frames=None,
            quantization_weight=settings.get("codebook_weight", 1.0),
            adversarial=GAMES[settings.get("disc_loss", "hinge")](),
            discriminator_start=settings["disc_start"],
            discriminator_weight=settings.get("disc_weight", 1.0),
            balance=Adaptive(1e4),
            discriminator_warmup=0,
            discriminator_ramp=0,
            terms={},
        )

    def _backbone(self) -> Convolutional:
        sizes = self.config["ddconfig"]
        return Convolutional(
            resolution=sizes["resolution"],
            image_channels=sizes["in_channels"],
            channels=sizes["ch"],
            channel_multipliers=sizes["ch_mult"],
            residual_blocks=sizes["num_res_blocks"],
            attention_resolutions=sizes["attn_resolutions"],
            norm_groups=32,
            dropout=sizes.get("dropout", 0.0),
            latent_channels=sizes["z_channels"],
        )

    def _quantizer(self) -> Quantizer:
        codes, dim = self.config["n_embed"], self.config["embed_dim"]
        if self.config["variant"] == "EMAVQ":
            return EMAQuantizer(codes, dim, 0.25, decay=0.99, eps=1e-5, start_from_data=False, revive_after=None)
        return VectorQuantizer(codes, dim, commitment_weight=1.0, codebook_weight=0.25)

    def _discriminator(self) -> PatchGAN:
        settings = self.config["loss"]
        return PatchGAN(
            settings.get("disc_in_channels", 3),
            settings.get("disc_ndf", 64),
            settings.get("disc_num_layers", 3),
            "actnorm" if settings.get("use_actnorm", False) else "batch",
        )

    def _fill(self, network: nn.Module, prefix: str) -> None:
        as_built = ("running_mean", "running_var", "num_batches_tracked", "cluster_size", "embed_avg", "initialized")
        state = network.state_dict()
        for name, shape in self.shapes.items():
            if name.startswith(DISCRIMINATOR) == bool(prefix) and not name.endswith(as_built):
                state[ours(name.removeprefix(prefix))].copy_(filled(name, shape))


@pytest.fixture(params=FILES, ids=lambda f: f.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def close(ours: Tensor | float, theirs: Tensor | float, relative: float = 1e-4, floor: float = 0.0) -> bool:
    """Whether the largest difference is small beside the largest value."""
    a, b = torch.as_tensor(ours).float(), torch.as_tensor(theirs).float()
    return float((a - b).abs().max()) <= max(relative * float(b.abs().max()), floor)


def test_files_are_there() -> None:
    assert FILES, f"no golden file in {FOLDER}"


def test_every_tensor_of_the_reference_has_a_place(golden: Golden) -> None:
    for name, shape in golden.shapes.items():
        assert list(golden.named(name).shape) == shape, name


@torch.no_grad()
def test_evaluation(golden: Golden) -> None:
    network = golden.autoencoder.eval()
    frames = golden.frames(0)
    expected = {k.removeprefix("eval/"): v for k, v in golden.arrays.items() if k.startswith("eval/")}
    assert close(frames, expected["input"])
    output = network(frames)
    assert close(network.quant_conv(network.encoder(frames[:, None])[:, 0]), expected["latent"])
    assert torch.equal(output.indices, expected["indices"].long())
    assert close(output.reconstruction, expected["reconstruction"])
    assert close(output.quantization_loss, expected["quantization_loss"])
    if "perplexity" in expected:
        assert close(output.perplexity, expected["perplexity"])
    assert close(network.decode(output.indices), expected["reconstruction"])


def test_trajectory(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    step = golden.step(golden.loss())
    gradients = record_gradients(step, monkeypatch)
    clips = torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8)  # the reference's input is float already
    for number, row in enumerate(golden.trajectory):
        frames = golden.frames(number + 1)[:, None]
        monkeypatch.setattr("vqgan.training.step.to_frames", lambda _, frames=frames: frames)
        metrics = step(number, [clips]).metrics
        relative = 1e-3 if number >= len(golden.trajectory) * 2 // 3 else 1e-4  # differences grow
        for theirs, name in METRICS.items():
            if theirs in row:
                assert close(metrics[name], row[theirs], relative), f"step {number}: {name}"
        assert ("train/adversarial" in metrics) == ("g_loss" in row), f"step {number}"
        assert ("train/discriminator" in metrics) == ("disc_loss" in row), f"step {number}"
    check_gradients(golden, gradients)
    for name, expected in golden.arrays.items():
        if name.startswith("final/"):
            assert close(golden.named(name.removeprefix("final/")), expected, 1e-3), name


def record_gradients(step: Step, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """The norm of each parameter's gradient at each player's first step."""
    recorded: dict[str, dict[str, float]] = {}
    for key, player in zip(("grad0", "disc_grad0"), step.players):

        def record(key: str = key, network: nn.Module = player.network, take: Any = player.optimizer.step) -> None:
            norms = {n: float(p.grad.norm()) for n, p in network.named_parameters() if p.grad is not None}
            recorded.setdefault(key, norms)
            take()

        monkeypatch.setattr(player.optimizer, "step", record)
    return recorded


def check_gradients(golden: Golden, gradients: dict[str, dict[str, float]]) -> None:
    for key in ("grad0", "disc_grad0"):
        expected = {n.removeprefix(f"{key}/"): v for n, v in golden.arrays.items() if n.startswith(f"{key}/")}
        assert expected or key == "disc_grad0", "a short trajectory may end before the discriminator's first step"
        for name, norm in expected.items():
            found = gradients[key].get(ours(name.removeprefix(DISCRIMINATOR)), 0.0)
            assert close(found, norm, 1e-4, FLOOR), f"{key} of {name}: {found} instead of {float(norm)}"
