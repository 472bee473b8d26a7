"""VidTok's causal tokenizers of clips with FSQ, version 1.1 (Tang et al. 2024, arXiv:2412.13061).

The network has our names (`VidTok`). Nothing stands between it and the codes, so our projections are identities. A file
is Lightning's or safetensors. Its config is needed: FSQ's levels and the version are not in the tensors. Weights are
those that VidTok's own scripts take; an average of them (`model_ema.`) is left out.
"""

from __future__ import annotations

from vqgan.errors import ConfigError
from vqgan.tokenizer.importing.imported import Imported, Names, assemble
from vqgan.tokenizer.importing.kinds.ibq import SIZES
from vqgan.tokenizer.importing.sizes import agree, identities, multiple, pyramid
from vqgan.tokenizer.importing.source import Source

MUST_BE = {"norm_type": "layernorm", "init_pad_mode": "replicate"}
ONE = {"num_codebooks": 1, "scale": 1.0}  # of FSQ: further ones are no published ones


def translate(source: Source) -> Imported:
    """The tokenizer in a checkpoint of VidTok.

    Raises:
        CheckpointError: it does not fit; its tensors are named.
        ConfigError: a setting is missing or cannot be honoured, or it is of another version.
    """
    state = source.state("state_dict")
    names = Names(state, lambda name: name, known=("loss.", "model_ema.", "regularization."))
    sizes = source.section("encoder_config", "params")
    for key, value in MUST_BE.items():
        if source.value(key, value, sizes) != value:
            raise ConfigError(f"encoder_config.params.{key} must be {value}, but is {sizes[key]!r}.")
    if "v1_1" not in source.value("target", "v1_1", source.section("encoder_config")):
        raise ConfigError("It is of VidTok 1.0, which pads time otherwise; tokenizers of 1.1 are imported.")
    fsq = source.section("regularizer_config", "params")
    levels = fsq.get("levels")
    if not isinstance(levels, list) or any(key in fsq and fsq[key] not in (value, None) for key, value in ONE.items()):
        raise ConfigError("VidTok's tensors do not say the levels of FSQ, regularizer_config.params.levels: --config.")
    channels, multipliers, blocks = pyramid(names, "encoder.conv_in.conv.weight")
    latent = names.width("encoder.conv_out.conv.weight", "encoder.conv_out.conv.bias")
    halved, doubled = (
        [i for i in range(len(multipliers)) if names.has(f"{network}_temporal.{i}.{layer}sample.mix_factor")]
        for network, layer in (("encoder.down", "down"), ("decoder.up", "up"))
    )
    interpolation = source.value("interpolation_mode", "nearest", sizes)
    decoder = source.section("decoder_config", "params")
    backbone = {
        "class": "VidTok", "resolution": multiple(256, len(multipliers)),
        "image_channels": names.width("decoder.conv_out.conv.weight", "decoder.conv_out.conv.bias"),
        "channels": channels, "channel_multipliers": multipliers, "residual_blocks": blocks,
        "halve_time_after": halved, "double_time_after": doubled,
        "interpolation": source.value("interpolation_mode", interpolation, decoder), "latent_channels": latent,
    }  # fmt: skip
    agree(sizes, backbone, SIZES)
    agree({"levels": len(levels)}, backbone, {"levels": "latent_channels"})
    quantizer = {"class": "FiniteScalarQuantizer", "levels": levels, "symmetric": False, "gain": 1.0}
    names.given = identities(latent)
    return Imported(assemble(backbone, quantizer, names))
