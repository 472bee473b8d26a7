"""Turn another project's checkpoint into a tokenizer that vqgan.load takes."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from vqgan.commands.parser import command_parser
from vqgan.config.build import conf_dir
from vqgan.errors import ConfigError, VQGANError
from vqgan.text import PROGRAM
from vqgan.tokenizer.card import model_card
from vqgan.tokenizer.folder import write
from vqgan.tokenizer.importing import kinds
from vqgan.tokenizer.importing.imported import Imported, Part
from vqgan.tokenizer.importing.source import read_source

KINDS = {m.name.replace("_", "-"): m.name for m in pkgutil.iter_modules(kinds.__path__)}
EPILOG = """\
example:
  vqgan import llamagen vq_ds16_c2i.pt --out tokenizers/llamagen

Sizes are read off the tensors. What these do not say, as levels of FSQ or weights of losses, is in the config: that of
--config, or one beside CKPT of the same name, or config.json; else it is as published.
"""


def main() -> None:
    """`vqgan import KIND CKPT --out DIR [--config YAML]`."""
    parser = command_parser("import", __doc__, EPILOG)
    parser.add_argument("kind", metavar="KIND", choices=sorted(KINDS), help=f"whose: {', '.join(sorted(KINDS))}")
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="the file that the project wrote, or its folder")
    parser.add_argument("--config", metavar="YAML", type=Path, help="the yaml or json that it was trained with")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the tokenizer")
    arguments = parser.parse_args()
    source, config = read_source(arguments.checkpoint, arguments.config)
    kind = importlib.import_module(f"{kinds.__name__}.{KINDS[arguments.kind]}")
    try:
        imported: Imported = kind.translate(source)
    except VQGANError:
        raise
    except Exception as error:  # a config that is of something else can fail in any way
        raise ConfigError(
            f"{config or arguments.checkpoint} describes no networks of {arguments.kind}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:500]}."
        ) from None
    tokenizer, description = imported.autoencoder, imported.autoencoder.description
    overrides = overrides_for(description["backbone"], description["quantizer"], imported.critic)
    name = arguments.out.resolve().name  # where the folder lies is of no use to those whom it is shared with
    about = f"Imported from `{arguments.checkpoint.name}` ({arguments.kind})."
    if tokenizer.downsampling.time > 1:
        overrides.append(f"data.clip_frames={1 + 4 * tokenizer.downsampling.time}")
    card = model_card(tokenizer, name, about, f"To fine-tune it: `{training_command(name, overrides)}`\n")
    write(arguments.out, description, tokenizer.state_dict(), imported.discriminator or None, card)
    also = " and its discriminator" if imported.discriminator else ""
    by = f", by {config}" if config else ""
    typed = training_command(arguments.out, overrides)
    print(f"{arguments.out} holds the tokenizer{also}{by}. Fine-tune its decoder on your videos with:\n  {typed}")


def training_command(folder: str | Path, overrides: Sequence[str]) -> str:
    """What to type to fine-tune the tokenizer in a folder."""
    words = [*PROGRAM.split(), "experiment=finetune", f"init_from={folder}", *overrides]
    return shlex.join([*words, "data=videos", "data.root=DIR"])


def overrides_for(backbone: Part, quantizer: Part, critic: Part) -> list[str]:
    """What to type so that a training command has these parts: of each the choice, and values that differ from its."""
    parts = [("backbone", "backbone", backbone), ("model", "model.quantizer", quantizer)]
    parts += [("discriminator", "discriminator", critic)] if critic else []
    return [typed for part in parts for typed in choice_of(*part)]


def choice_of(group: str, path: str, part: Part) -> list[str]:
    """The choice of a group that has the part's class and the fewest values that differ, and these."""
    found = []
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        config = OmegaConf.load(file)
        section = OmegaConf.to_container(config, resolve=False)
        for key in path.split(".")[1:]:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict) and str(section.get("_target_", "")).rpartition(".")[2] == part["class"]:
            values = {key: value for key, value in part.items() if key != "class" and section.get(key) != value}
            texts = [f"{path}.{key}={json.dumps(value, separators=(',', ':'))}" for key, value in values.items()]
            found.append([f"{group}={file.stem}", *texts])
    return min(found, key=len)
