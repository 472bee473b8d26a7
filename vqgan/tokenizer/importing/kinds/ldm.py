"""latent-diffusion's VQ autoencoders (Rombach et al. 2022, arXiv:2112.10752): taming's, perhaps without attention.

A file is the autoencoder's, or that of a whole diffusion model, which keeps it in `first_stage_model.`. Weights are
those that a diffusion model is trained on; an average of them (`model_ema.`) is left out.
"""

from __future__ import annotations

from vqgan.tokenizer.importing.imported import Imported
from vqgan.tokenizer.importing.kinds.taming import vqgan_in
from vqgan.tokenizer.importing.source import Source
from vqgan.tokenizer.taming import FIRST_STAGE


def translate(source: Source) -> Imported:
    """The tokenizer in a checkpoint of latent-diffusion.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting cannot be honoured, or it is a KL autoencoder.
    """
    state = source.state("state_dict")
    first = {name.removeprefix(FIRST_STAGE): value for name, value in state.items() if name.startswith(FIRST_STAGE)}
    return vqgan_in(first or state, source)
