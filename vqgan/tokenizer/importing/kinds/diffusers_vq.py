"""diffusers' `VQModel`: the reference's network under other names, linear layers in its attention.

A folder has `config.json` and `diffusion_pytorch_model.safetensors` or `.bin`, flat. Their decoder's levels begin with
the lowest resolution, ours with the highest. Older files call the layers of attention otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vqgan.errors import ConfigError
from vqgan.tokenizer.importing.imported import CODEBOOK, Imported, Names, assemble
from vqgan.tokenizer.importing.sizes import agree, codebook, convolutional, without_attention
from vqgan.tokenizer.importing.source import Source

ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLDER = {"norm": "group_norm", "q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"}
MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
MUST_BE = {"act_fn": "silu", "norm_type": "group", "lookup_from_codebook": False}
SIZES = {"in_channels": "image_channels", "out_channels": "image_channels", "layers_per_block": "residual_blocks",
         "latent_channels": "latent_channels"}  # fmt: skip


def translate(source: Source) -> Imported:
    """The tokenizer in a model of diffusers.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting cannot be honoured.
    """
    for key, value in MUST_BE.items():
        if source.value(key, value) != value:
            raise ConfigError(f"The config's {key} must be {value}, but is {source.settings[key]!r}.")
    state = source.state("state_dict")
    levels = len({match[1] for name in state if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", name))})
    layers = OLDER if any(name.endswith(".query.weight") for name in state) else ATTENTION
    names = Names(state, lambda name: their_name(name, levels, layers))
    backbone = convolutional(names, source.value("sample_size", 256), source.value("norm_num_groups", 32))
    agree(source.settings, backbone, SIZES)
    quantizer = {"class": "VectorQuantizer", **codebook(names), "commitment_weight": 1.0, "codebook_weight": 0.25}
    agree(source.settings, quantizer, {"num_vq_embeddings": "codebook_size"})
    if not source.value("mid_block_add_attention", True):
        names.given = without_attention(backbone)
    return Imported(assemble(backbone, quantizer, names))


def their_name(name: str, levels: int, layers: Mapping[str, str] = ATTENTION) -> str:
    """The name in diffusers of one of our tensors.

    Args:
        name: ours.
        levels: of the decoder.
        layers: their names of attention's.
    """
    if name in CODEBOOK:
        return CODEBOOK[name]
    name = re.sub(r"\.(attn\.\d+|attn_1)\.(\w+)\.", lambda m: f".{m[1]}.{layers[m[2]]}.", name)
    name = re.sub(r"^(\w+)\.mid\.(\w+)\.", lambda m: f"{m[1]}.mid_block.{MIDDLE[m[2]]}.", name)
    name = re.sub(r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1.", name)
    name = re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.", name)
    name = re.sub(r"\.block\.(\d+)\.", r".resnets.\1.", re.sub(r"\.attn\.(\d+)\.", r".attentions.\1.", name))
    name = re.sub(r"\.(down|up)sample\.", r".\1samplers.0.", name)
    return name.replace(".nin_shortcut.", ".conv_shortcut.").replace("coder.norm_out.", "coder.conv_norm_out.")
