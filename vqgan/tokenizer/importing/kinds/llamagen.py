"""LlamaGen's `VQModel` (Sun et al. 2024, arXiv:2406.06525): VQGAN's network under other names, unit vectors as codes.

A file has sections: `ema`, which they evaluate with where it is, else `model`; `discriminator`; and `args`, what was
typed to train it. Attention stands at the lowest resolution and in the middle. Their decoder's levels begin with the
lowest resolution, ours with the highest.
"""

from __future__ import annotations

import re

from vqgan.errors import CheckpointError
from vqgan.tokenizer.importing.imported import CODEBOOK, Imported, Names, assemble, critic_of
from vqgan.tokenizer.importing.sizes import codebook, convolutional
from vqgan.tokenizer.importing.source import Source

MIDDLE = {"block_1": "0", "attn_1": "1", "block_2": "2"}


def translate(source: Source) -> Imported:
    """The tokenizer in a checkpoint of LlamaGen.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting cannot be honoured.
    """
    state = source.state("ema", "model", "state_dict")
    levels = len({match[1] for name in state if (match := re.match(r"decoder\.conv_blocks\.(\d+)\.", name))})

    def theirs(name: str) -> str:
        if match := re.fullmatch(r"(encoder|decoder)\.mid\.(\w+)\.(.*)", name):
            return f"{match[1]}.mid.{MIDDLE[match[2]]}.{match[3]}"
        name = re.sub(r"^encoder\.down\.(\d+)\.", r"encoder.conv_blocks.\1.", name)
        name = re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.conv_blocks.{levels - 1 - int(m[1])}.", name)
        return CODEBOOK.get(name, name.replace(".block.", ".res."))

    names = Names(state, theirs, known=("quantize.codebook_used",))
    weights = {"commitment_weight": source.value("commit_loss_beta", 0.25), "codebook_weight": 1.0}
    quantizer = {"class": "VectorQuantizer", **codebook(names), **weights}
    if source.value("codebook_l2_norm", True):
        start = {"gradient": "straight_through", "start_from_data": False, "revive_after": None}
        quantizer |= {"class": "CosineQuantizer", **start}
    tokenizer = assemble(convolutional(names, source.value("image_size", 256)), quantizer, names)
    critic = source.content.get("discriminator")
    try:
        found = critic_of(Source({"discriminator": critic}, {}).state("discriminator"), "") if critic else ({}, {})
    except CheckpointError:  # something else of that name
        found = ({}, {})
    return Imported(tokenizer, *found)
