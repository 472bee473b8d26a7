"""Every yaml of every group composes and builds, found by looking: a new part is tested the moment it exists."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from tests.conftest import Compose
from tests.support.vit import vit_file
from vqgan.autoencoder import Autoencoder
from vqgan.config.build import build, check_top_level, conf_dir
from vqgan.data import BadFiles
from vqgan.errors import ConfigError
from vqgan.loggers import Logger
from vqgan.prior.transformer import Alphabet
from vqgan.tokenizer.folder import part_in
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

ELSEWHERE = ("sweep", "prior")  # groups that are no choice of train.yaml
CHOICES = sorted((f.parent.name, f.stem) for f in conf_dir().glob("*/*.yaml") if f.parent.name not in ELSEWHERE)
PRIORS = sorted(file.stem for file in (conf_dir() / "prior").glob("*.yaml"))
EXPERIMENTS = [name for group, name in CHOICES if group == "experiment"]
BACKBONES = [name for group, name in CHOICES if group == "backbone"]
PROMISED = (  # keys of DESIGN.md
    "loss.perceptual_weight", "loss.discriminator_start", "loss.discriminator_weight", "loss.quantization_weight",
    "model.quantizer.commitment_weight", "optimizer.lr", "data.root", "data.val_root", "data.val_fraction",
    "data.max_bad_fraction", "data.resolution", "data.batch_size", "data.workers", "trainer.steps",
    "trainer.discriminator_every", "trainer.accumulate", "trainer.precision", "trainer.compile", "trainer.device",
    "trainer.log_every", "trainer.evaluate_every", "trainer.checkpoint_every", "name", "seed", "run_dir", "resume",
)  # fmt: skip


def composed_as_typed(*overrides: str) -> DictConfig:
    """The config without the small sizes of the other tests."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_builds(
    group: str, choice: str, composed: Compose, tmp_path: Path, vgg16_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if choice == "mlflow":
        pytest.importorskip("mlflow")
    small = ["backbone.resolution=32", f"loss.perceptual.weights={vgg16_weights}"]
    normless = ("small", "small_f8", "small_f8_16384", "causal_small", "video_tiny", "decoder_only", "vidtok")
    if choice not in normless:
        small.append("backbone.norm_groups=4")
    needed = {
        "data=videos": [f"data.root={tmp_path}"],
        "data=images": [f"data.root={tmp_path}"],
        "data=shards": [f"data.root={tmp_path}"],
        "schedule=cosine": ["schedule.warmup_steps=1"],  # of the three
        "discriminator=blur": ["discriminator.norm_groups=4"],
        "discriminator=blur_small": ["discriminator.norm_groups=4"],
        "discriminator=dino": [f"discriminator.weights={vit_file(tmp_path, depth=12)}"],
        "schedule=linear": ["schedule.warmup_steps=1"],
        "experiment=small_f8": ["schedule.warmup_steps=1"],
        "experiment=video_f8": ["schedule.warmup_steps=1"],
        "experiment=video_f16": ["schedule.warmup_steps=1"],
        "experiment=small_f8_16384": ["schedule.warmup_steps=1"],
    }
    if choice in ("decoder_only", "finetune"):  # which go on from something
        (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    config = composed(f"{group}={choice}", *small, *needed.get(f"{group}={choice}", []))
    check_top_level(config)
    clips = build(composed(*small).data, "data").datasets(BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0))
    monkeypatch.setattr(type(build(config.data, "data")), "datasets", lambda *_: clips)
    trainer = make_trainer(config, tmp_path)
    assert trainer.settings.steps == 3
    assert all(isinstance(logger, Logger) for logger in trainer.journal.loggers.loggers.values())
    assert set(trainer.journal.loggers.loggers) == {"jsonl", *config.logger} - {"private"}


@pytest.mark.parametrize("choice", BACKBONES)
def test_every_backbone_builds_at_its_own_size(choice: str) -> None:
    config = composed_as_typed(f"backbone={choice}")
    backbone = build(config.backbone, "backbone")
    with torch.device("meta"):
        autoencoder = Autoencoder(backbone, build(config.model.quantizer, "model.quantizer"))
        frames = torch.empty(1, 1, backbone.image_channels, backbone.resolution, backbone.resolution)
        latents = autoencoder.encoder(frames)
    assert part_in(config, "backbone")["channels"] == config.backbone.channels, "what an export says of it"
    time, height, width = backbone.downsampling
    rows, columns = backbone.resolution // height, backbone.resolution // width
    assert latents.shape == (1, 1, backbone.latent_channels, rows, columns)
    if choice.startswith("f"):
        assert (time, height, width) == (1, *2 * [int(choice.removeprefix("f"))])


@pytest.mark.parametrize("choice", PRIORS)
def test_every_prior_composes_and_builds_with_as_many_parameters_as_it_says(choice: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("prior", ["data.root=tokens", f"prior={choice}", "logger=none"])
    check_top_level(config)
    with torch.device("meta"):
        prior = build(config.prior, "prior", alphabet=Alphabet(2, 1, 1, 1, 0))
    said = float((conf_dir() / "prior" / f"{choice}.yaml").read_text().split()[1])
    assert sum(p.numel() for p in prior.parameters()) / 1e6 == pytest.approx(said, rel=0.06)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_opens_with_its_question_and_command(name: str) -> None:
    lines = (conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    comments = [line for line in lines if line != "# @package _global_"]  # which Hydra reads from the first line only
    assert comments[0].startswith("# ")
    assert comments[0].endswith("?")
    assert comments[1].startswith("# python train.py ")
    overrides = shlex.split(comments[1])[3:]
    assert f"experiment={name}" in overrides
    config = composed_as_typed(*overrides)
    check_top_level(config)
    assert config.name != "vqgan"  # its runs are kept apart from the demo's


@pytest.mark.parametrize("logger", ["wandb", "tensorboard", "mlflow", "none", "[wandb,tensorboard]"])
@pytest.mark.parametrize("data", ["videos", "images", "shards", "synthetic"])
@pytest.mark.parametrize(("model", "backbone"), [("vqmodel", "tiny"), ("emavq", "f8"), ("emavq", "f16")])
def test_the_promised_keys_exist(model: str, backbone: str, data: str, logger: str) -> None:
    config = composed_as_typed(f"model={model}", f"backbone={backbone}", f"data={data}", f"logger={logger}")
    node = OmegaConf.to_container(config)
    pictures = data == "images"  # have no time axis, so no clip_frames
    variant = ["model.quantizer.codebook_weight"] if model == "vqmodel" else ["model.quantizer.decay"]
    for key in [*PROMISED, *variant, *(["data.clip_frames"] if not pictures else [])]:
        value = node
        for part in key.split("."):
            assert isinstance(value, dict)
            assert part in value, key
            value = value[part]
    loggers = {"none": set(), "[wandb,tensorboard]": {"wandb", "tensorboard"}}.get(logger, {logger})
    assert set(config.logger) == {"private", *loggers}


def experiment(folder: Path, *lines: str) -> str:
    """Write the experiment `mine` into a folder of the user's own; returns the override that finds it."""
    file = folder / "mine" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(lines) + "\n")
    return f"hydra.searchpath=[file://{folder / 'mine'}]"


def test_an_experiment_wins_over_the_primary_config_and_the_command_line_over_both(tmp_path: Path) -> None:
    mine = experiment(
        tmp_path, "# @package _global_", "defaults:", "  - override /model: vqmodel", "name: mine", "seed: 5",
        "trainer: {steps: 7, keep: 9}", "model: {quantizer: {codebook_size: 99}}",
    )  # fmt: skip
    config = composed_as_typed(mine, "experiment=mine", "trainer.steps=8", "seed=6")
    check_top_level(config)
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    assert (values["name"], values["seed"]) == ("mine", 6)
    assert (values["trainer"]["steps"], values["trainer"]["keep"]) == (8, 9)
    assert values["model"]["quantizer"]["codebook_size"] == 99
    assert values["model"]["quantizer"]["_target_"] == "vqgan.quantizers.VectorQuantizer"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["# @package _global_", "trainer: {stepz: 7}"], "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'?"),
        (["# @package _global_", "optimiser: {lr: 7}"], "Unknown key 'optimiser'. Did you mean 'optimizer'?"),
        (["# @package _global_", "model: {quantiser: {}}"], "Unknown key 'model.quantiser'. Did you mean"),
        (["# @package _global_", "loss: {perceptual: {weight: x}}"], "Unknown key 'loss.perceptual.weight'."),
        (["# @package _global_", "schedule: 7"], "schedule must be a section of values, but is 7."),
        (["trainer: {steps: 7}"], "An experiment's file must begin with '# @package _global_'"),
        (["# @package _global_", "sweep: {params: {}}"], "A study's file must begin with '# @package hydra.sweeper'"),
    ],
)
def test_a_mistake_in_an_experiment_is_named(lines: list[str], message: str, composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(composed(experiment(tmp_path, *lines), "experiment=mine"))
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()
