"""taming-transformers' VQGAN (Esser et al. 2021, arXiv:2012.09841), whose names ours are but for the codes.

A file is Lightning's: `state_dict` with `loss.*`. The config may be missing, unlike for `import-taming`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vqgan.errors import ConfigError
from vqgan.tokenizer.importing.imported import Imported, Names, assemble, critic_of
from vqgan.tokenizer.importing.kinds.ibq import SIZES
from vqgan.tokenizer.importing.sizes import agree, codebook, convolutional, without_attention
from vqgan.tokenizer.importing.source import Source
from vqgan.tokenizer.taming import RENAMED, VARIANTS

THEIRS = {ours: theirs for theirs, ours in RENAMED.items()}


def translate(source: Source) -> Imported:
    """The tokenizer in a checkpoint of taming-transformers.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting cannot be honoured, or its codes are of a kind that is not here.
    """
    return vqgan_in(source.state("state_dict"), source)


def vqgan_in(state: Mapping[str, Tensor], source: Source) -> Imported:
    """As `translate`, of a state dict."""
    if "quantize.embed.weight" in state:
        raise ConfigError("Its codes are a Gumbel softmax's (GumbelVQ), which is not here.")
    ddconfig = source.section("ddconfig")
    if source.value("double_z", False, ddconfig) or "quantize.embedding.weight" not in state:
        raise ConfigError("It has no table of codes: is it a KL autoencoder?")
    names = Names(state, lambda name: THEIRS.get(name, name), known=("loss.", "model_ema."))
    backbone = convolutional(names, source.side())
    agree(ddconfig, backbone, SIZES)
    kind, weights = VARIANTS["EMAVQ" if "quantize.embedding.cluster_size" in state else "VQModel"]
    quantizer: dict[str, Any] = {"class": kind, **codebook(names), **weights}
    agree(source.settings, quantizer, {"n_embed": "codebook_size", "embed_dim": "latent_dim"})
    if not any(".mid.attn_1." in name for name in state):  # attn_type: none
        names.given = without_attention(backbone)
    return Imported(assemble(backbone, quantizer, names), *critic_of(state, "loss.discriminator."))
