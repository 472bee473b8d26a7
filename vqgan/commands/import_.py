"""Turn another project's checkpoint into a tokenizer that vqgan.load takes."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from vqgan.commands.parser import add_out, command_parser
from vqgan.errors import ConfigError, VQGANError
from vqgan.tokenizer.card import model_card
from vqgan.tokenizer.folder import write
from vqgan.tokenizer.importing import kinds
from vqgan.tokenizer.importing.imported import Imported
from vqgan.tokenizer.importing.source import read_source
from vqgan.tokenizer.typed import command, overrides_for

KINDS = {m.name.replace("_", "-"): m.name for m in pkgutil.iter_modules(kinds.__path__)}
RECIPE = "experiment=finetune"
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
    add_out(parser, "DIR", "folder for the tokenizer")
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
    assert overrides is not None  # of everything that is imported there is a choice
    name = arguments.out.resolve().name  # where the folder lies is of no use to those whom it is shared with
    about = f"Imported from `{arguments.checkpoint.name}` ({arguments.kind})."
    if tokenizer.downsampling.time > 1:
        overrides.append(f"data.clip_frames={1 + 4 * tokenizer.downsampling.time}")
    card = model_card(tokenizer, name, about, f"To fine-tune it: `{command(name, overrides, RECIPE)}`\n")
    write(arguments.out, description, tokenizer.state_dict(), imported.discriminator or None, card)
    also = " and its discriminator" if imported.discriminator else ""
    by = f", by {config}" if config else ""
    typed = command(arguments.out, overrides, RECIPE)
    print(f"{arguments.out} holds the tokenizer{also}{by}. Fine-tune its decoder on your videos with:\n  {typed}")
