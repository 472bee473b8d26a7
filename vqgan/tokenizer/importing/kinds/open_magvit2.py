"""Open-MAGVIT2's picture tokenizers (Luo et al. 2024, arXiv:2409.04410) as SEED-Voken writes them.

The network has our names (`OpenMAGVIT2`). Nothing stands between it and the signs, so our projections are identities. A
file is Lightning's, as IBQ's is. Bit i of an index is the sign of channel i; where the original has
`token_factorization` its two indices are lower and upper bits of ours: `pre + 2^factorized_bits[0] · post`.
"""

from __future__ import annotations

from vqgan.errors import ConfigError
from vqgan.tokenizer.importing.imported import Imported, Names, assemble, critic_of
from vqgan.tokenizer.importing.kinds.ibq import SIZES, averaged
from vqgan.tokenizer.importing.sizes import agree, identities, multiple, pyramid
from vqgan.tokenizer.importing.source import Source


def translate(source: Source) -> Imported:
    """The tokenizer in a checkpoint of Open-MAGVIT2.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting cannot be honoured, or it is one of clips.
    """
    state = source.state("state_dict")
    if any(name.endswith(".conv_1.weight") for name in state):
        raise ConfigError("This is a tokenizer of clips; of Open-MAGVIT2's those of pictures are imported.")
    names = averaged(source, Names(state, lambda name: name, known=("loss.",)))
    channels, multipliers, blocks = pyramid(names)
    bits = names.width("encoder.conv_out.weight", "encoder.conv_out.bias")
    backbone = {
        "class": "OpenMAGVIT2", "resolution": multiple(source.side(), len(multipliers)),
        "image_channels": names.width("decoder.conv_out.weight", "decoder.conv_out.bias"), "channels": channels,
        "channel_multipliers": multipliers, "residual_blocks": blocks, "norm_groups": 32, "latent_channels": bits,
    }  # fmt: skip
    agree(source.section("ddconfig"), backbone, SIZES)
    share = source.value("sample_minimization_weight", 1.0)  # of the entropies, whose weight is the loss's
    loss = source.section("lossconfig", "params")
    quantizer = {
        "class": "LookupFreeQuantizer", "codebook_size": 2 ** min(bits, 64), "depth": 1,
        "commitment_weight": source.value("commit_weight", 0.25, loss),
        "entropy_weight": source.value("entropy_loss_weight", 0.1, loss) * share,
        "diversity_weight": source.value("batch_maximization_weight", 1.0) / share if share else 0.0,
        "temperature": 0.01, "entropy_boost": 1.0, "entropy_boost_steps": 1,
    }  # fmt: skip
    agree(source.settings, quantizer, {"n_embed": "codebook_size"})
    names.given = identities(bits)
    return Imported(assemble(backbone, quantizer, names), *critic_of(state, "loss.discriminator."))
