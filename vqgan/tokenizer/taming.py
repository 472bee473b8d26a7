"""taming-transformers' checkpoints and settings, in its names and in ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.config.build import build
from vqgan.errors import CheckpointError, ConfigError, InvalidValueError
from vqgan.tokenizer.folder import description_of
from vqgan.tokenizer.tokenizer import rebuild

# The reference's name of each tensor that is called otherwise here.
RENAMED = {
    "quantize.embedding.weight": "quantizer.codebook",
    "quantize.embedding.cluster_size": "quantizer.cluster_sizes",
    "quantize.embedding.embed_avg": "quantizer.cluster_sums",
}
DISCRIMINATOR = "loss.discriminator."
# What a checkpoint may hold beside the two players: the perceptual network, a loss parameter, averaged weights.
LEFT_OUT = ("loss.perceptual_loss.", "loss.logvar", "model_ema.")
FIRST_STAGE = "first_stage_model."  # where latent-diffusion keeps the whole autoencoder
NORM_GROUPS = 32  # of every network of the reference
DOWN = {"z_channels": "latent_channels", "resolution": "resolution", "in_channels": "image_channels", "ch": "channels",
        "ch_mult": "channel_multipliers", "num_res_blocks": "residual_blocks",
        "attn_resolutions": "attention_resolutions", "dropout": "dropout"}  # fmt: skip
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # quantizer and values with which the reference's numbers come out
    "VQModel": ("VectorQuantizer", {"commitment_weight": 1.0, "codebook_weight": 0.25}),
    "EMAVQ": (
        "EMAQuantizer",
        {"commitment_weight": 0.25, "decay": 0.99, "eps": 1e-5, "start_from_data": False, "revive_after": None},
    ),
}


@dataclass
class Imported:
    """A checkpoint of the reference's, in our names."""

    description: dict[str, Any]
    autoencoder: Autoencoder
    discriminator: dict[str, Tensor]  # empty if the checkpoint has none
    loss: dict[str, Any]  # the `lossconfig.params`


def import_taming(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Autoencoder:
    """The autoencoder of a taming-transformers or latent-diffusion checkpoint, in evaluation mode.

    Args:
        state_dict: of the reference's model (`checkpoint["state_dict"]`).
        config: `model.params` of its yaml (`ddconfig`, `n_embed`, `embed_dim`, perhaps `lossconfig`), and `variant`,
            `VQModel` (where it is missing) or `EMAVQ`.

    Raises:
        ConfigError: the config asks for something that is not here.
        CheckpointError: tensors are missing, unknown or of another shape; they are named.
    """
    return translate(state_dict, config).autoencoder


def translate(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Imported:
    """As `import_taming`, with the discriminator and the settings."""
    state = _autoencoder_and_loss(state_dict)
    ours = {RENAMED.get(k, k): v for k, v in state.items() if not k.startswith(("loss.", *LEFT_OUT))}
    discriminator = {k.removeprefix(DISCRIMINATOR): v for k, v in state.items() if k.startswith(DISCRIMINATOR)}
    strange = [k for k in state if k.startswith("loss.") and not k.startswith((DISCRIMINATOR, *LEFT_OUT))]
    if strange:
        raise CheckpointError(f"The checkpoint has tensors of an unknown loss: {', '.join(sorted(strange)[:5])}.")
    quantizer, values = quantizer_of(config)
    backbone = {"class": "Convolutional", **asdict(backbone_of(config))}
    description = description_of(backbone, {"class": quantizer, **values})
    codes = values["codebook_size"]

    ours["quantizer.idle"] = torch.zeros(codes, dtype=torch.int64)  # how long codes are idle is not known there
    if quantizer == "EMAQuantizer":
        ours["quantizer.started"] = torch.tensor(True)
    network = rebuild(description, ours)
    network.load_state_dict(ours)
    loss = config.get("lossconfig") or {}
    return Imported(description, network.eval(), discriminator, dict(loss.get("params") or {}))


def to_taming(autoencoder: Mapping[str, Tensor], discriminator: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """State dicts in the reference's names; what the reference does not have is left out."""
    theirs = {ours: name for name, ours in RENAMED.items()}
    state = {theirs.get(k, k): v for k, v in autoencoder.items() if k not in ("quantizer.idle", "quantizer.started")}
    return state | {DISCRIMINATOR + k: v for k, v in (discriminator or {}).items()}


def backbone_of(config: Mapping[str, Any]) -> Convolutional:
    """Our sizes for the reference's `ddconfig`.

    Raises:
        ConfigError: a size is missing or has no counterpart here.
    """
    sizes = dict(config.get("ddconfig") or {})
    if sizes.pop("double_z", False):
        raise ConfigError("ddconfig.double_z is true: that is a KL autoencoder, which has no codebook.")
    if sizes.pop("out_ch", sizes.get("in_channels")) != sizes.get("in_channels"):
        raise ConfigError("ddconfig.out_ch differs from in_channels, which is not supported.")
    for default, value in (("resamp_with_conv", True), ("attn_type", "vanilla"), ("use_linear_attn", False)):
        if sizes.pop(default, value) != value:
            raise ConfigError(f"ddconfig.{default} must be {value}.")
    sizes.setdefault("dropout", 0.0)
    unknown, missing = sorted(sizes.keys() - DOWN.keys()), sorted(DOWN.keys() - sizes.keys())
    if unknown or missing:
        raise ConfigError(f"ddconfig does not fit: unknown {unknown or 'none'}, missing {missing or 'none'}.")
    values: dict[Any, Any] = {DOWN[k]: v for k, v in sizes.items()} | {"norm_groups": NORM_GROUPS}
    try:
        backbone: Convolutional = build(DictConfig({"_target_": "vqgan.backbones.Convolutional", **values}), "ddconfig")
    except InvalidValueError as error:
        key = error.key.removeprefix("ddconfig.")
        theirs = {ours: name for name, ours in DOWN.items()}
        raise InvalidValueError(f"ddconfig.{theirs.get(key, key)}", error.value, error.expected) from None
    return backbone


def quantizer_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and values of our quantizer for the reference's variant, `n_embed` and `embed_dim`."""
    variant = config.get("variant", "VQModel")
    if variant not in VARIANTS:
        raise ConfigError(f"The variant {variant!r} is not supported; choose one of {', '.join(VARIANTS)}.")
    for key in ("n_embed", "embed_dim"):
        if key not in config:
            raise ConfigError(f"The config has no {key}.")
    name, values = VARIANTS[variant]
    return name, {"codebook_size": config["n_embed"], "latent_dim": config["embed_dim"], **values}


def _autoencoder_and_loss(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if any(k.startswith(FIRST_STAGE) for k in state):
        return {k.removeprefix(FIRST_STAGE): v for k, v in state.items() if k.startswith(FIRST_STAGE)}
    return dict(state)
