"""What a config may not say, and that the message names the key that was typed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.conftest import Compose
from vqgan.config.build import build, check_top_level, public_values
from vqgan.config.command import with_home
from vqgan.config.user_errors import in_our_words
from vqgan.config.versions import register_resolver
from vqgan.errors import ConfigError
from vqgan.training.run import run

WRONG_TYPES = {
    "trainer.steps=abc": "a whole number",
    "trainer.steps=true": "a whole number",
    "trainer.steps=1.5": "a whole number",
    "trainer.steps=null": "a whole number",
    "trainer.clip_gradients=true": "a number or null",
    "trainer.precision=fp8": "one of fp32, bf16, tf32",
    "trainer.compile=1": "true or false",
    "optimizer.lr=high": "a number",
    "optimizer.lr=true": "a number",
    "optimizer.betas=3": "a list of 2 numbers",
    "optimizer.betas=[0.9]": "a list of 2 numbers",
    "data.flip=3": "true or false",
    "data.root=2024": "text (quoted: 'data.root=\"2024\"')",
    "data.crop=left": "one of random, center",
    "backbone.channel_multipliers=2": "a list of whole numbers",
    "backbone.channel_multipliers=[1,true]": "a list of whole numbers",
    "backbone.channel_multipliers=[1,two]": "a list of whole numbers",
    "model.quantizer.start_from_data=maybe": "true or false",
    "model.quantizer=5": "a section with a _target_",
    "loss.pixel=l3": "a choice (loss/pixel=l1, loss/pixel=l2)",
    "loss.perceptual=5": "null",
    "name=2024": "text (quoted: 'name=\"2024\"')",
    "name=''": "text",
    "seed=true": "a whole number in [0, 2^31)",
    "seed=1.0": "a whole number in [0, 2^31)",
}
OUT_OF_RANGE = [
    *[f"trainer.{key}=-1" for key in ("steps", "discriminator_every", "accumulate", "clip_gradients", "log_every")],
    *[f"trainer.{key}=0" for key in ("evaluate_every", "pictures", "checkpoint_every", "usage_steps", "keep")],
    *[f"data.{key}=0" for key in ("batch_size", "validation_clips", "clip_frames", "stride", "videos", "val_fraction")],
    *["data.val_fraction=2", "data.val_fraction=1", "data.workers=-1", "data.max_bad_fraction=1.5"],
    *["data.max_bad_files=-1", "data.resolution=8", "data.resolution=18"],
    *[
        "model.quantizer.latent_dim=0",
        "model.quantizer.codebook_size=0",
        "model.quantizer.decay=1.5",
        "model.quantizer.decay=-0.1",
    ],
    *["model.quantizer.eps=0", "model.quantizer.revive_after=0", "model.quantizer.commitment_weight=-1"],
    *["model.quantizer.commitment_weight=nan"],
    *[f"backbone.{key}=0" for key in ("channels", "image_channels", "norm_groups", "residual_blocks")],
    *["backbone.dropout=1", "backbone.channels=6", "backbone.channel_multipliers=[]"],
    *["backbone.channel_multipliers=[1,0]", "backbone.latent_channels=0"],
    *[f"loss.{key}=-1" for key in ("perceptual_weight", "quantization_weight", "discriminator_start")],
    *["loss.discriminator_weight=-1", "loss.balance.max_weight=0"],
    *["discriminator.channels=0", "discriminator.layers=0"],
    *["optimizer.lr=-1", "optimizer.eps=-1", "optimizer.weight_decay=-1", "optimizer.betas=[0.9,1]"],
    *["discriminator_optimizer.lr=-1", "schedule.warmup_steps=-1", "seed=-1", "seed=4294967296"],
]
NOT_OURS_TO_CALL = ["os.system", "shutil.copy", "builtins.open", "builtins.eval", "subprocess.run", "torch.load"]


def refusal(composed: Compose, tmp_path: Path, *overrides: str) -> str:
    """The message of the run that may not start; nothing of it may stay."""
    with pytest.raises(ConfigError) as caught:
        run(composed(*overrides), overrides)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert message.endswith((".", "="))
    assert not (tmp_path / "run").exists()
    return message


@pytest.mark.parametrize(("override", "expected"), WRONG_TYPES.items())
def test_a_wrong_type_is_refused(override: str, expected: str, composed: Compose, tmp_path: Path) -> None:
    message = refusal(composed, tmp_path, override)
    assert message.startswith(f"{override.partition('=')[0]} must be {expected}, but is ")


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused(override: str, composed: Compose, tmp_path: Path) -> None:
    key, _, value = override.partition("=")
    message = refusal(composed, tmp_path, override)
    assert key in message
    assert value.removeprefix("[").removesuffix("]").split(",")[-1] in message
    assert " must be " in message or " is refused by torch.optim.Adam: " in message


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["model=vqmodel", "model.quantizer.codebook_weight=-1"], "model.quantizer.codebook_weight"),
        (["schedule=cosine", "trainer.steps=9"], "schedule.warmup_steps"),
        (["schedule=cosine", "schedule.warmup_steps=1", "schedule.final_factor=2"], "schedule.final_factor"),
        (["data=images", "data.root=.", "data.batch_size=0"], "data.batch_size"),
        (["data.resolution=16", "backbone.resolution=0"], "backbone.resolution"),
        (["data.fps=24", "data.stride=2"], "data.stride"),
        (["logger=wandb", "logger.wandb.mode=sometimes"], "logger.wandb.mode"),
    ],
)
def test_other_choices_check_their_ranges(overrides: list[str], key: str, composed: Compose, tmp_path: Path) -> None:
    assert refusal(composed, tmp_path, *overrides).startswith(f"{key} must be ")


@pytest.mark.parametrize("target", NOT_OURS_TO_CALL)
@pytest.mark.parametrize("section", ["loss", "data"])
def test_a_config_builds_only_parts_of_a_model(
    section: str, target: str, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail(f"{target} was called")

    for module, name in ((os, "system"), (subprocess, "run")):
        monkeypatch.setattr(module, name, fail)
    message = refusal(composed, tmp_path, f"{section}._target_={target}")
    assert message.startswith(f"{section}._target_ is '{target}', which a config may not build")


@pytest.mark.parametrize("target", ["vqgan.quantizers.NoSuch", "nosuch.module.Class", "''", "5"])
def test_a_class_that_does_not_exist_is_named(target: str, composed: Compose, tmp_path: Path) -> None:
    message = refusal(composed, tmp_path, f"model.quantizer._target_={target}")
    assert message.startswith("model.quantizer._target_ must be the full name of a class, but is ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+trainer.stepz=3",
            "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'? Keys of 'trainer': accumulate,",
        ),
        ("+trainer.seed=3", "Unknown key 'trainer.seed'. Keys of 'trainer': accumulate,"),
        ("+loss.perceptual.weight=x", "Unknown key 'loss.perceptual.weight'. Did you mean 'loss.perceptual.weights'?"),
        ("+model.quantiser.decay=1", "Unknown key 'model.quantiser'. Did you mean 'model.quantizer'?"),
        ("+discriminator_optimizer.lrr=1", "Unknown key 'discriminator_optimizer.lrr'. Did you mean"),
        (
            "+optimiser.lr=1",
            "Unknown key 'optimiser'. Did you mean 'optimizer'? Keys: allow_other_data, allow_other_processes,",
        ),
        ("+logger.wandb.mode=auto", "logger.wandb has no _target_"),
        ("~trainer.steps", "trainer.steps is missing; give it a value: +trainer.steps="),
        ("~optimizer.lr", "discriminator_optimizer.lr cannot be resolved: Interpolation key 'optimizer.lr' not found"),
        ("~model.quantizer", "model.quantizer must be a section with a _target_, but is None"),
        ("~optimizer", "The configuration has no 'optimizer'; compose it from conf/train.yaml"),
        ("trainer.steps=${no.where}", "trainer.steps cannot be resolved: Interpolation key 'no.where' not found"),
        ("trainer.steps=${oc.env:NO_SUCH}", "trainer.steps cannot be resolved: "),
        ("data=videos", "data.root has no value; give one on the command line: data.root=..."),
        ("trainer.device=tpu9", "trainer.device=tpu9 is not available here; choose one of auto,"),
    ],
)
def test_keys_are_checked_by_name(override: str, message: str, composed: Compose, tmp_path: Path) -> None:
    assert refusal(composed, tmp_path, override).startswith(message)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizr.lr=1", ["Unknown key 'optimizr'", "Did you mean 'optimizer'?", "trainer"]),
        ("optimizer.l=1", ["Unknown key 'optimizer.l'", "Did you mean 'optimizer.lr'?", "betas", "weight_decay"]),
        ("resolution=32", ["Unknown key 'resolution'.", "Did you mean 'backbone.resolution' or 'data.resolution'?"]),
        ("codebook_size=8", ["Did you mean 'model.quantizer.codebook_size'?"]),
        ("nonsense=8", ["Unknown key 'nonsense'. Keys: "]),
        ("experimnt=f16", ["Unknown key 'experimnt'", "Did you mean 'experiment'?"]),
        ("backbone=f17", ["backbone=f17", "Did you mean backbone=f16?", "f16, f8, "]),
        ("experiment=nosuch", ["experiment=nosuch", "Choices of experiment: ", "f16"]),
        ("logger=[wandb,nosuch]", ["logger=nosuch", "none, tensorboard, wandb"]),
        ("a=[1", ["'a=[1'", "quotes"]),
        ("data.root=/videos/a(1)", ["'data.root=/videos/a(1)'", "quotes"]),
        ("steps", ["'steps'", "key=value"]),
        ("model=vqmodel,emavq", ["model=vqmodel,emavq", "--multirun", "[a,b]"]),
        ("prior=tiny", ["there is no group 'prior' here"]),
        ("model=[]]", ["'model=[]]'"]),
    ],
)
def test_what_cannot_be_composed_is_said_in_one_paragraph(
    override: str, expected: list[str], composed: Compose
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # Hydra has many
        composed(override)
    error = in_our_words(caught.value)
    assert error.exit_code == 2
    assert "\n" not in str(error)
    for part in expected:
        assert part in str(error)


def test_values_from_the_environment_are_named_not_shown(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    config = composed()
    config.data.root = "/videos/${oc.env:TOKEN}"
    config.trainer.steps = "${oc.decode:${oc.env:STEPS,7}}"
    values = public_values(config)
    assert values["data"]["root"] == "/videos/<environment: TOKEN>"
    assert values["trainer"]["steps"] == "<environment: STEPS>"
    assert values["discriminator"]["image_channels"] == config.backbone.image_channels
    assert config.data.root == "/videos/hunter2"
    assert config.trainer.steps == 7


def test_while_a_config_is_shown_others_have_their_values(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", "/videos")
    shown, other = composed(), OmegaConf.create({"root": "${oc.env:FOLDER}", "list": "${oc.decode:'[1, 2]'}"})
    seen = []
    register_resolver("test.meanwhile", lambda: seen.append(OmegaConf.to_container(other, resolve=True)))
    try:
        shown.data.root = "${test.meanwhile:}"
        public_values(shown)
    finally:
        OmegaConf.clear_resolver("test.meanwhile")
    assert seen == [{"root": "/videos", "list": [1, 2]}]


class Library(torch.nn.Module):
    """What is of somebody else, and takes its time."""

    started = 0

    def __init__(self, size: int = 1, depth: int = 1) -> None:
        type(self).started += 1
        raise ValueError(f"a size may not be {size}")


def test_what_a_library_refuses_is_named_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Library, "started", 0)
    node = OmegaConf.create({"_target_": f"{__name__}.Library", "size": 7, "depth": 2})
    with pytest.raises(ConfigError, match=r"^part\.size=7 is refused by .*Library: a size may not be 7\.$"):
        build(node, "part")
    assert Library.started == 1


def test_a_library_that_refuses_a_combination_is_quoted(composed: Compose) -> None:
    node = OmegaConf.create({"_target_": "torch.optim.Adam", "lr": -1, "weight_decay": -1})
    with pytest.raises(
        ConfigError, match=r"^optimizer cannot be built by torch.optim.Adam: Invalid learning rate: -1\.$"
    ):
        build(node, "optimizer", params=composed_parameters())


def composed_parameters() -> list[object]:
    return [torch.nn.Parameter(torch.zeros(1))]


def test_the_check_changes_nothing(composed: Compose) -> None:
    config = composed("data=videos", "data.root=somewhere")
    before = OmegaConf.to_yaml(config, resolve=False)
    check_top_level(config)
    assert OmegaConf.to_yaml(config, resolve=False) == before


def test_more_codes_than_can_be_counted_are_refused(composed: Compose, tmp_path: Path) -> None:
    message = refusal(composed, tmp_path, "model=bsq", f"model.quantizer.codebook_size={2**36}")
    assert "model.quantizer.depth" in message


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("data.root=~/videos", "data.root='/home/me/videos'"),
        ("+init_from=~", "+init_from='/home/me'"),
        ("data.root=~/it's here", "data.root='/home/me/it\\'s here'"),
        ("data.root=~/a,~/b", "data.root=~/a,~/b"),
        ("~schedule", "~schedule"),
        ("data.root='~/videos'", "data.root='~/videos'"),
        ("a=b~c", "a=b~c"),
    ],
)
def test_a_tilde_is_the_home_that_a_shell_would_have_made_of_it(
    typed: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert with_home(typed) == read
    if read.startswith("data.root='"):
        assert OverridesParser.create().parse_override(read).value().startswith(("/home/me/", "~/"))
