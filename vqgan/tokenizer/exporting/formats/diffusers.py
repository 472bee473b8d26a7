"""A folder for diffusers: VQModel.from_pretrained loads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vqgan.backbones.sizes import Sizes
from vqgan.tokenizer.exporting.formats.taming import refuse_other_networks
from vqgan.tokenizer.exporting.made import Made
from vqgan.tokenizer.exporting.table import table_of
from vqgan.tokenizer.importing.kinds.diffusers_vq import MUST_BE, SIZES, their_name
from vqgan.tokenizer.tokenizer import Tokenizer

WHO = "diffusers' VQModel"
LAYERS = ("q", "k", "v", "proj_out")  # of attention, linear there and 1×1 convolutions here
USE = """\
from diffusers import VQModel
model = VQModel.from_pretrained("{name}").eval()
latents = model.encode(frames).latents      # (n, rgb, h, w) in [-1, 1]
_, _, (_, _, indices) = model.quantize(latents)
frames = model.decode(latents).sample       # which quantizes them
"""


def make(tokenizer: Tokenizer, discriminator: Mapping[str, Tensor] | None) -> Made:  # noqa: ARG001
    """A network of pictures with one table of codes.

    Raises:
        ConfigError: `VQModel` has no such network.
    """
    description = tokenizer.description["backbone"]
    refuse_other_networks(description["class"], WHO)
    table = table_of(tokenizer, WHO)
    sizes = Sizes(**{key: value for key, value in description.items() if key != "class"})
    levels = range(len(sizes.widths))
    state = {"quantize.embedding.weight": table}
    for name, tensor in tokenizer.state_dict().items():
        if not name.startswith("quantizer."):
            is_linear = "attn" in name and name.split(".")[-2] in LAYERS and tensor.ndim == 4
            state[their_name(name, len(levels))] = tensor[..., 0, 0] if is_linear else tensor
    attends = [sizes.resolution_at(level) in sizes.attention_resolutions for level in levels]
    config: dict[str, Any] = {
        "_class_name": "VQModel",
        **MUST_BE,
        **{theirs: getattr(sizes, ours) for theirs, ours in SIZES.items()},
        "block_out_channels": sizes.widths,
        "down_block_types": [f"{'Attn' if has else ''}DownEncoderBlock2D" for has in attends],
        "up_block_types": [f"{'Attn' if has else ''}UpDecoderBlock2D" for has in reversed(attends)],
        "num_vq_embeddings": len(table),
        "vq_embed_dim": table.shape[1],
        "norm_num_groups": sizes.norm_groups,
        "sample_size": sizes.resolution,
        "mid_block_add_attention": True,
    }

    def write(folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "diffusion_pytorch_model.safetensors")
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    return Made(write, USE, "diffusers")
