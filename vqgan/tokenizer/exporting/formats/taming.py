"""A checkpoint for taming-transformers and what reads its files: model.ckpt, and model.yaml for its own loader.

`model.json` has the same as `model.params` of the yaml, without its loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from vqgan.errors import ConfigError
from vqgan.tokenizer.exporting.made import Made
from vqgan.tokenizer.exporting.table import table_of
from vqgan.tokenizer.importing.imported import critic_of
from vqgan.tokenizer.taming import DISCRIMINATOR, DOWN, NORM_GROUPS, VARIANTS, to_taming
from vqgan.tokenizer.tokenizer import Tokenizer

WHO = "taming-transformers"
VARIANT = {quantizer: variant for variant, (quantizer, _) in VARIANTS.items()}
USE = """\
import torch, yaml
from taming.models.vqgan import {variant}
model = {variant}(**yaml.safe_load(open("{{name}}/model.yaml"))["model"]["params"])
model.load_state_dict(torch.load("{{name}}/model.ckpt")["state_dict"], strict=False)     # what its loss has is its own
quantized, _, (_, _, indices) = model.eval().encode(frames)      # (n, rgb, h, w) in [-1, 1]
frames = model.decode(quantized)
"""


def make(tokenizer: Tokenizer, discriminator: Mapping[str, Tensor] | None) -> Made:
    """Its network of pictures, with a table of codes, and its discriminator where ours is one.

    Raises:
        ConfigError: the reference has no such networks.
    """
    backbone, quantizer = tokenizer.description["backbone"], tokenizer.description["quantizer"]
    refuse_other_networks(backbone["class"], WHO)
    if backbone["norm_groups"] != NORM_GROUPS:
        raise ConfigError(
            f"{WHO}'s networks have {NORM_GROUPS} groups a normalisation; this one has {backbone['norm_groups']}."
        )
    state = dict(tokenizer.state_dict())
    if quantizer["class"] not in VARIANT:
        table = table_of(tokenizer, WHO)
        state = {name: value for name, value in state.items() if not name.startswith("quantizer.")}
        state["quantizer.codebook"] = table
    variant = VARIANT.get(quantizer["class"], "VQModel")
    of_critic = {DISCRIMINATOR + name: value for name, value in (discriminator or {}).items()}
    critic, sizes = critic_of(of_critic, DISCRIMINATOR)
    codes, dim = tokenizer.quantizer.codebook_size, tokenizer.quantizer.latent_dim
    ddconfig = {name: backbone[ours] for name, ours in DOWN.items()}
    ddconfig |= {"double_z": False, "out_ch": backbone["image_channels"]}
    params = {"embed_dim": dim, "n_embed": codes, "ddconfig": ddconfig}
    losses = "taming.modules.losses.vqperceptual."
    loss: dict[str, Any] = {"target": f"{losses}DummyLoss"}
    if sizes:
        values = {"disc_start": 0, "disc_in_channels": sizes["image_channels"], "disc_ndf": sizes["channels"],
                  "disc_num_layers": sizes["layers"], "use_actnorm": sizes["norm"] == "actnorm"}  # fmt: skip
        loss = {"target": f"{losses}VQLPIPSWithDiscriminator", "params": values}
    model = {"target": f"taming.models.vqgan.{variant}", "params": params | {"lossconfig": loss}}

    def write(folder: Path) -> None:
        torch.save({"state_dict": to_taming(state, critic or None)}, folder / "model.ckpt")
        (folder / "model.yaml").write_text(OmegaConf.to_yaml({"model": model}), encoding="utf-8")
        (folder / "model.json").write_text(json.dumps(params, indent=1) + "\n", encoding="utf-8")

    return Made(write, USE.format(variant=variant), "taming-transformers")


def refuse_other_networks(backbone: str, who: str) -> None:
    """Raise `ConfigError` unless a backbone is the reference's network of pictures."""
    if backbone != "Convolutional":
        raise ConfigError(
            f"{who} has no such network as {backbone}: only backbones like backbone=tiny, f8 and f16, of the class "
            "Convolutional, are its own. --format torch and onnx take any."
        )
