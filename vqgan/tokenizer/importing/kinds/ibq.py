"""IBQ's tokenizers (Shi et al. 2024, arXiv:2412.02692) as SEED-Voken writes them: taming's names, other codes.

A file is Lightning's: `state_dict` with `model_ema.*`, the averaged weights, which they evaluate with where `use_ema`
says so, under each name without its dots, and with `loss.*`.
"""

from __future__ import annotations

from dataclasses import replace

from vqgan.errors import ConfigError
from vqgan.tokenizer.importing.imported import CODEBOOK, Imported, Names, assemble, critic_of
from vqgan.tokenizer.importing.sizes import agree, codebook, convolutional
from vqgan.tokenizer.importing.source import Source

AVERAGE, COUNTERS = "model_ema.", ("model_ema.decay", "model_ema.num_updates")
SIZES = {"z_channels": "latent_channels", "in_channels": "image_channels", "out_ch": "image_channels", "ch": "channels",
         "ch_mult": "channel_multipliers", "num_res_blocks": "residual_blocks"}  # fmt: skip


def translate(source: Source) -> Imported:
    """The tokenizer in a checkpoint of IBQ.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting cannot be honoured.
    """
    if source.value("l2_normalize", False):
        raise ConfigError("Its codes are unit vectors (l2_normalize), which no published IBQ has; they are not here.")
    state = source.state("state_dict")
    names = averaged(source, Names(state, lambda name: CODEBOOK.get(name, name), known=("loss.",)))
    backbone = convolutional(names, source.side())
    agree(source.section("ddconfig"), backbone, SIZES)
    share = source.value("sample_minimization_weight", 1.0)  # of the entropies, whose weight is the loss's
    evenly = source.value("batch_maximization_weight", 1.0)
    weight = source.value("entropy_loss_weight", 0.05, source.section("lossconfig", "params"))
    quantizer = {
        "class": "IndexPropagationQuantizer", **codebook(names), "soft_weight": 1.0, "commitment_weight": 1.0,
        "codebook_weight": source.value("beta", 0.25), "entropy_weight": weight * share,
        "diversity_weight": evenly / share if share else 0.0,
        "temperature": source.value("entropy_temperature", 0.01), "start_from_data": False, "revive_after": None,
    }  # fmt: skip
    agree(source.settings, quantizer, {"n_embed": "codebook_size", "embed_dim": "latent_dim"})
    return Imported(assemble(backbone, quantizer, names), *critic_of(state, "loss.discriminator."))


def averaged(source: Source, names: Names) -> Names:
    """The same names, or those of the averaged weights where they are what the project evaluates with.

    Their names are the others' without dots; the others are then spare.
    """
    has_average = any(name.startswith(AVERAGE) and name not in COUNTERS for name in names.state)
    if not source.value("use_ema", has_average):
        return replace(names, known=(*names.known, AVERAGE))

    def average(name: str) -> str:
        return AVERAGE + name.replace(".", "")

    spare = {name for name in names.state if average(name) in names.state}
    known = (*names.known, *COUNTERS)
    return replace(names, theirs=lambda name: average(names.theirs(name)), known=known, spare=spare)
