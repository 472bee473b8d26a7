"""A tokenizer as a folder to share, or for another program: its weights or graphs, and a model card."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vqgan.config.keys import NOT_SHOWN
from vqgan.errors import ConfigError
from vqgan.files.reading import number, read_object, read_rows, read_yaml
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.saved import load_config
from vqgan.tokenizer.card import model_card
from vqgan.tokenizer.exporting import formats
from vqgan.tokenizer.exporting.made import PICTURE, Made, write_out
from vqgan.tokenizer.folder import autoencoder_in, describe, discriminator_of, part_in, read, tensors_in
from vqgan.tokenizer.tokenizer import Tokenizer, rebuild
from vqgan.tokenizer.typed import command, overrides_for

MEASURED = """Trained for {step} steps.

| validation | |
| --- | --- |
{figures}"""
EVALUATED = """## Measured

On {frames} frames of {videos} files ({split}, {resolution} pixels), as vqgan's `docs/metrics.md` defines the figures.

| | | |
| --- | --- | --- |
{figures}
"""
SHOWN = f"""## Reconstructions

![originals above, reconstructions below]({PICTURE})
"""
RECIPE = """## Recipe

```yaml
{recipe}```
"""


def export(source: Path, out: Path, layout: str, parts: Path | None = None) -> str:
    """Write the best checkpoint of a run, or a tokenizer that was exported or imported, in some form.

    Args:
        source: a run folder, an exported folder, or a hub id.
        out: made where it is missing.
        layout: a module of `exporting.formats`.
        parts: a folder with classes that the tokenizer is built of; whoever loads the export must name it too.

    Returns:
        What is to be known of it; nothing where there is nothing.

    Raises:
        ConfigError: there is no such tokenizer, or it cannot be carried in that form; nothing is written.
        CheckpointError: it is damaged, or none of its checkpoints is intact.
        StorageError: the folder cannot be written.
    """
    step = None
    if (source / "checkpoints").is_dir():
        description = describe(source)
        step, checkpoint = Checkpoints(source / "checkpoints", keep=1).read_best()
        state, discriminator = autoencoder_in(checkpoint, source), tensors_in(checkpoint, "discriminator", source)
    elif (source / "config.yaml").exists():
        raise ConfigError(f"{source} is no run folder: it has no checkpoints.")
    else:
        description, state = read(str(source))
        discriminator = discriminator_of(source) or {}
    tokenizer = rebuild(description, state, parts)
    tokenizer.load_state_dict(state)
    tokenizer.eval().requires_grad_(False)
    form = importlib.import_module(f"{formats.__name__}.{layout}")
    made: Made = form.make(tokenizer, discriminator or None)
    picture = picture_at(step, source)
    write_out(made, out, card_of(source, out.resolve().name, step, tokenizer, made, picture is not None), picture)
    return made.said


def further(source: Path, out: Path) -> str | None:
    """The command that trains further what was exported; None if that has parts of which there is no choice here."""
    description, _ = read(out)
    config = load_config(source)
    critic = None
    if config is not None and discriminator_of(out):
        critic = part_in(config, "discriminator")
    typed = overrides_for(description["backbone"], description["quantizer"], critic)
    return None if typed is None else command(out, typed)


def validation_at(step: int, run: Path) -> dict[str, float]:
    """What was measured at a step; nothing if no row of the run's metrics that can be read says it."""
    of_step = (row for row in read_rows(run, "metrics.jsonl") if row.get("step") == step and "validation/psnr" in row)
    values = {name: number(value) for name, value in next(of_step, {}).items() if name.startswith("validation/")}
    return {name: value for name, value in values.items() if value is not None}


def picture_at(step: int | None, source: Path) -> Path | None:
    """Reconstructions that are there: a run's at a step, or those of an exported folder."""
    file = source / PICTURE if step is None else source / "reconstructions" / f"step-{step:08d}.png"
    return file if file.is_file() and not file.is_symlink() else None


def evaluation_of(source: Path, tokenizer: Tokenizer) -> str:
    """The figures of `evaluation.json`, if they are this tokenizer's; nothing that says where its data lay."""
    report = read_object(source, "evaluation.json")
    metrics, protocol = report.get("metrics"), report.get("protocol")
    try:
        assert isinstance(metrics, dict)
        assert isinstance(protocol, dict)
        if protocol["tokenizer"]["sha256"] != tokenizer.sha256():
            return ""
        rows = [(str(name), *(number(metric.get(end)) for end in ("value", "low", "high")))
                for name, metric in metrics.items()]  # fmt: skip
        data = {key: protocol["data"][key] for key in ("frames", "videos", "split", "resolution")}
    except (AssertionError, AttributeError, KeyError, TypeError):  # of something else, or damaged
        return ""
    figures = [
        f"| {name} | {value:.4g} | {'' if low is None or high is None else f'[{low:.4g}, {high:.4g}]'} |"
        for name, value, low, high in rows
        if value is not None
    ]
    return EVALUATED.format(**data, figures="\n".join(figures)) if figures else ""


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


def card_of(source: Path, name: str, step: int | None, tokenizer: Tokenizer, made: Made, has_picture: bool) -> str:
    """What the tokenizer is, how good, and from which recipe; what came from elsewhere has none."""
    about, more = made.said, [SHOWN] if has_picture else []
    more.append(evaluation_of(source, tokenizer))
    if step is not None:
        measured = validation_at(step, source)
        figures = [f"| {k.removeprefix('validation/')} | {v:.4g} |" for k, v in measured.items()]
        about = " ".join(filter(None, [about, MEASURED.format(step=step, figures="\n".join(figures))]))
        more.append(RECIPE.format(recipe=recipe_in(source)))
    return model_card(tokenizer, name, about, "\n".join(filter(None, more)), name, made.use, made.library)
