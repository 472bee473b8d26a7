"""The JSON configs of older training scripts become recipes that train."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vqgan.commands import import_json
from vqgan.config.build import build, check_top_level, conf_dir
from vqgan.errors import ConfigError

FULL: dict[str, Any] = {
    "model_type": "TamingVQGAN",
    "model_args": {
        "model_variant": "EMAVQ",
        "learning_rate": 1e-4,
        "n_embed": 1024,
        "embed_dim": 256,
        "ddconfig": {
            "z_channels": 256, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 1, 2, 2, 4],
            "num_res_blocks": 2, "attn_resolutions": [16], "dropout": 0.0,
        },
        "lossconfig": {
            "target": "models.taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
            "params": {
                "disc_conditional": False, "disc_in_channels": 3, "disc_start": 10000, "disc_weight": 0.8,
                "codebook_weight": 1.0, "perceptual_weight": 1.0, "pixelloss_weight": 1.0,
            },
        },
    },
    "train_args": {"lr": 1e-4, "use_taming_loss": True, "num_steps": 100000},
}  # fmt: skip


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """FULL with values put at dotted paths; `...` removes a key."""
    content = copy.deepcopy(FULL)
    for path, value in changes:
        *parents, key = path.split(".")
        node = content
        for parent in parents:
            node = node[parent]
        if value is ...:
            del node[key]
        else:
            node[key] = value
    return content


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command on a JSON's content; gives the composed recipe and what was printed."""

    def command(content: Any) -> tuple[DictConfig, str, str]:
        source, out = tmp_path / "params.json", tmp_path / "conf" / "experiment" / "mine.yaml"
        source.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setattr(sys, "argv", ["vqgan import-json", str(source), "--out", str(out)])
        import_json.main()
        search = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("train", ["experiment=mine", "data=videos", "data.root=x", search])
        check_top_level(config)
        return config, out.read_text(), capsys.readouterr().out

    return command


def test_the_recipe_composes_to_the_same_numbers(imported: Any) -> None:
    config, text, printed = imported(FULL)
    backbone = build(config.backbone, "backbone")
    assert (backbone.latent_channels, backbone.resolution, backbone.channels) == (256, 256, 128)
    assert list(backbone.channel_multipliers) == [1, 1, 2, 2, 4]
    assert (backbone.residual_blocks, list(backbone.attention_resolutions), backbone.norm_groups) == (2, [16], 32)
    quantizer = OmegaConf.to_container(config.model.quantizer, resolve=True)
    assert quantizer["_target_"].endswith("EMAQuantizer")
    assert (quantizer["codebook_size"], quantizer["latent_dim"], quantizer["decay"]) == (1024, 256, 0.99)
    assert config.loss.discriminator_start == 10000
    assert (config.loss.discriminator_weight, config.loss.quantization_weight) == (0.8, 1.0)
    assert config.loss.perceptual_weight == 1.0
    assert (config.optimizer.lr, list(config.optimizer.betas)) == (1e-4, [0.5, 0.9])
    assert config.trainer.steps == 100000
    assert "pixelloss_weight" in text
    assert "experiment=mine" in printed


@pytest.mark.parametrize(
    ("model_type", "variant", "kind"),
    [
        ("taming_vqgan", "VQModel", "VectorQuantizer"),
        ("VQGAN", "EMAVQ", "EMAQuantizer"),
        ("vqgan", ..., "VectorQuantizer"),
        ("EMAVQ", ..., "EMAQuantizer"),
        ("emavq", ..., "EMAQuantizer"),
        ("TamingVQGAN", ..., "VectorQuantizer"),
    ],
)
def test_variants(imported: Any, model_type: str, variant: Any, kind: str) -> None:
    config, _, _ = imported(changed(("model_type", model_type), ("model_args.model_variant", variant)))
    assert config.model.quantizer._target_.endswith(kind)
    if kind == "VectorQuantizer":  # the reference's weights
        assert (config.model.quantizer.commitment_weight, config.model.quantizer.codebook_weight) == (1.0, 0.25)


def test_without_a_loss_config_its_defaults_hold(imported: Any) -> None:
    config, _, _ = imported(changed(("model_args.lossconfig", ...)))
    loss = config.loss
    assert (loss.discriminator_start, loss.discriminator_weight, loss.quantization_weight) == (10000, 0.8, 1.0)


def test_the_models_learning_rate_wins(imported: Any) -> None:
    config, _, _ = imported(changed(("train_args.lr", 5e-3), ("model_args.learning_rate", 2e-5)))
    assert config.optimizer.lr == 2e-5
    config, _, _ = imported(changed(("train_args.lr", 5e-3), ("model_args.learning_rate", ...)))
    assert config.optimizer.lr == 5e-3


def test_older_names(imported: Any) -> None:
    content = changed(
        ("model_args.n_embed", ...), ("model_args.embed_dim", ...), ("model_args.ddconfig.in_channels", ...),
        ("model_args.vocab_size", 512), ("model_args.n_init", 64), ("model_args.input_channels", 3),
    )  # fmt: skip
    config, _, _ = imported(content)
    quantizer = config.model.quantizer
    assert (quantizer.codebook_size, quantizer.latent_dim, config.backbone.image_channels) == (512, 64, 3)


def test_training_values_are_carried_or_listed(imported: Any) -> None:
    content = changed(
        ("train_args.batch_size", 6), ("train_args.grad_clip", 1.0), ("train_args.use_amp", True),
        ("train_args.project", "x"), ("comment", "mine"),
    )  # fmt: skip
    config, text, printed = imported(content)
    assert (config.data.batch_size, config.trainer.clip_gradients) == (6, 1.0)
    for dropped in ("train_args.use_amp", "train_args.project", "comment"):
        assert dropped in text
        assert dropped in printed


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        (changed(("model_type", ...)), "model_type"),
        (changed(("model_type", "StyleGAN")), "model_type"),
        (changed(("model_args", ...)), "model_args is missing"),
        (changed(("model_args", 3)), "model_args"),
        (changed(("model_args.model_variant", "GumbelVQ")), "model_variant"),
        (changed(("model_args.ddconfig", ...)), "ddconfig is missing"),
        (changed(("model_args.ddconfig.ch", ...)), "ddconfig does not fit"),
        (changed(("model_args.ddconfig.chh", 3)), "chh"),
        (changed(("model_args.ddconfig.ch", "big")), "model_args.ddconfig.ch "),
        (changed(("model_args.ddconfig.ch", 100)), "model_args.ddconfig.ch "),
        (changed(("model_args.ddconfig.double_z", True)), "double_z"),
        (changed(("model_args.n_embed", ...)), "model_args.n_embed"),
        (changed(("model_args.n_embed", "1024")), "model_args.n_embed"),
        (changed(("model_args.embed_dim", -1)), "model_args.embed_dim"),
        (changed(("model_args.surprise", 1)), "model_args.surprise"),
        (changed(("model_args.learning_rate", "fast")), "model_args.learning_rate"),
        (changed(("model_args.lossconfig.target", "x.OtherLoss")), "OtherLoss"),
        (changed(("model_args.lossconfig.params.disc_conditional", True)), "disc_conditional"),
        (changed(("model_args.lossconfig.params.disc_factor", 0.5)), "disc_factor"),
        (changed(("model_args.lossconfig.params.disc_in_channels", 1)), "disc_in_channels"),
        (changed(("model_args.lossconfig.params.disc_strat", 1)), "disc_strat"),
        (changed(("model_args.lossconfig.params.disc_start", -5)), "disc_start"),
        (changed(("train_args.use_taming_loss", False)), "use_taming_loss"),
        (changed(("train_args.num_steps", "many")), "train_args.num_steps"),
    ],
)
def test_what_cannot_be_honoured_is_named(imported: Any, content: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")) as error:
        imported(content)
    assert "\n" not in str(error.value)
