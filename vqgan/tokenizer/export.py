"""A run's tokenizer as a folder to share: weights, sizes and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from vqgan.config.keys import NOT_SHOWN
from vqgan.errors import ConfigError, StorageError
from vqgan.files.lock import filling
from vqgan.files.reading import number, read_rows, read_yaml
from vqgan.runs.checkpoint import Checkpoints
from vqgan.tokenizer.card import model_card
from vqgan.tokenizer.folder import autoencoder_in, describe, tensors_in, write
from vqgan.tokenizer.taming import VARIANTS, to_taming
from vqgan.tokenizer.tokenizer import Tokenizer, rebuild

THEIRS = [quantizer for quantizer, _ in VARIANTS.values()]
MEASURED = """Trained for {step} steps.

| validation | |
| --- | --- |
{figures}"""
RECIPE = """## Recipe

```yaml
{recipe}```
"""


def export(run: Path, out: Path, layout: str, parts: Path | None = None) -> None:
    """Write the best checkpoint of a run.

    Args:
        run: a run folder.
        out: made where it is missing.
        layout: `safetensors` or `taming`.
        parts: a folder with classes that the tokenizer is built of; whoever loads the export must name it too.

    Raises:
        ConfigError: there is no run.
        CheckpointError: none of its checkpoints is intact.
        StorageError: the folder cannot be written.
    """
    if not (run / "checkpoints").is_dir():
        raise ConfigError(f"{run} is no run folder: it has no checkpoints.")
    description = describe(run)
    step, state = Checkpoints(run / "checkpoints", keep=1).read_best()
    network, discriminator = autoencoder_in(state, run), tensors_in(state, "discriminator", run)
    tokenizer = rebuild(description, network, parts)  # or nothing is written
    if layout == "taming":
        write_taming(out, to_taming(network, discriminator or None), description)
    else:
        write(out, description, network, discriminator or None, card_of(run, out.resolve().name, step, tokenizer))


def write_taming(folder: Path, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """`model.ckpt`, a checkpoint that the reference loads, and `model.json`, its `model.params`."""
    b, q = description["backbone"], description["quantizer"]
    if b["class"] != "Convolutional" or q["class"] not in THEIRS:
        raise ConfigError(f"The reference has no such networks as {b['class']} with {q['class']}: leave --format out.")
    sizes = {
        "double_z": False, "z_channels": b["latent_channels"], "resolution": b["resolution"],
        "in_channels": b["image_channels"], "out_ch": b["image_channels"], "ch": b["channels"],
        "ch_mult": b["channel_multipliers"], "num_res_blocks": b["residual_blocks"],
        "attn_resolutions": b["attention_resolutions"], "dropout": b["dropout"],
    }  # fmt: skip
    if b["norm_groups"] != 32:
        raise ConfigError(f"The reference's networks have 32 groups a normalisation; this one has {b['norm_groups']}.")
    try:
        with filling(folder) as aside:
            torch.save({"state_dict": dict(state)}, aside / "model.ckpt")
            params = {"embed_dim": q["latent_dim"], "n_embed": q["codebook_size"], "ddconfig": sizes}
            (aside / "model.json").write_text(json.dumps(params, indent=1) + "\n", encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise StorageError(f"The checkpoint cannot be written to {folder}: {error}.") from None


def validation_at(step: int, run: Path) -> dict[str, float]:
    """What was measured at a step; nothing if no row of the run's metrics that can be read says it."""
    of_step = (row for row in read_rows(run, "metrics.jsonl") if row.get("step") == step and "validation/psnr" in row)
    values = {name: number(value) for name, value in next(of_step, {}).items() if name.startswith("validation/")}
    return {name: value for name, value in values.items() if value is not None}


def recipe_in(run: Path) -> str:
    """A run's config without what is of its machine: names, places and who is told. Nothing in it is resolved."""
    recipe: Any = OmegaConf.to_container(read_yaml(run / "config.yaml"), resolve=False)  # `describe` has read it
    for key in NOT_SHOWN:
        *sections, name = key.split(".")
        values = recipe
        for section in sections:
            values = values.get(section) if isinstance(values, dict) else None
        if isinstance(values, dict):
            values.pop(name, None)
    return OmegaConf.to_yaml(recipe, resolve=False)


def card_of(run: Path, name: str, step: int, tokenizer: Tokenizer) -> str:
    """What the tokenizer is, how good, and from which recipe."""
    measured = validation_at(step, run)
    figures = [f"| {k.removeprefix('validation/')} | {v:.4g} |" for k, v in measured.items()]
    about = MEASURED.format(step=step, figures="\n".join(figures))
    return model_card(tokenizer, name, about, RECIPE.format(recipe=recipe_in(run)), title=name)
