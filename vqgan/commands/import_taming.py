"""Turn a taming-transformers or latent-diffusion checkpoint into a tokenizer that vqgan.load takes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from vqgan.commands.parser import add_out, command_parser
from vqgan.errors import CheckpointError, ConfigError, VQGANError
from vqgan.files.plain_data import read_plain
from vqgan.files.reading import read_yaml
from vqgan.text import PROGRAM
from vqgan.tokenizer.card import model_card
from vqgan.tokenizer.folder import write
from vqgan.tokenizer.taming import translate


def main() -> None:
    """`vqgan import-taming CKPT --config YAML --out DIR`."""
    parser = command_parser(
        "import-taming", __doc__, "example:\n  vqgan import-taming last.ckpt --config model.yaml --out tokenizers/f16"
    )
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="a Lightning checkpoint or a bare state dict")
    parser.add_argument("--config", metavar="YAML", type=Path, required=True, help="the yaml that it was trained with")
    add_out(parser, "DIR", "folder for the tokenizer")
    arguments = parser.parse_args()
    checkpoint, config = read_checkpoint(arguments.checkpoint), read_config(arguments.config)
    try:
        imported = translate(checkpoint, config)
        overrides = overrides_for(imported.description, imported.loss)
    except VQGANError:
        raise
    except Exception as error:  # a yaml that is of something else can fail in any way
        raise ConfigError(
            f"{arguments.config} does not describe this checkpoint's networks: {type(error).__name__}: {error}."
        ) from None
    name = arguments.out.resolve().name  # where the folder lies is of no use to those whom it is shared with
    about = f"Imported from `{arguments.checkpoint.name}`."
    further = f"To train it further: `{training_command(name, overrides)}`\n"
    card = model_card(imported.autoencoder, name, about, further)
    state = imported.autoencoder.state_dict()
    write(arguments.out, imported.description, state, imported.discriminator or None, card)
    also = " and its discriminator" if imported.discriminator else ""
    typed = training_command(arguments.out, overrides)
    print(f"{arguments.out} holds the tokenizer{also}. Train it further with:\n  {typed}")


def training_command(folder: str | Path, overrides: Sequence[str]) -> str:
    """What to type to train the tokenizer in a folder further."""
    return shlex.join([*PROGRAM.split(), f"init_from={folder}", *overrides, "data=videos", "data.root=DIR"])


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint.

    Raises:
        CheckpointError: it cannot be read as plain data, or holds none.
    """
    if not file.is_file():
        raise ConfigError(f"There is no file {file}.")
    try:
        content = read_plain(file)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} If you trust it, save its state dict alone with the software that wrote it: "
            "torch.save(model.state_dict(), FILE)."
        ) from None
    content = dict(dict.items(content)) if isinstance(content, dict) else {}  # whatever its methods were replaced by
    state = content.get("state_dict", content)
    state = dict(dict.items(state)) if isinstance(state, dict) else {}
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CheckpointError(f"{file} holds no state dict.")
    return state


def read_config(file: Path) -> dict[str, Any]:
    """`model.params` of a yaml of the reference's, with the variant that its `target` names."""
    if not file.is_file():
        raise ConfigError(f"There is no file {file}.")
    content = OmegaConf.to_container(read_yaml(file))
    if _builds_or_refers(content):
        raise ConfigError(f"{file} has references (${{name}}) or a _target_, which no config of the reference has.")
    try:
        assert isinstance(content, dict)
        model: dict[str, Any] = content.get("model", content)
        params: dict[str, Any] = model.get("params", model)
        if "first_stage_config" in params:  # latent-diffusion: the autoencoder inside a diffusion model's yaml
            model = params["first_stage_config"]
            params = model["params"]
        variant = str(params.get("variant") or model.get("target") or "VQModel").rpartition(".")[2]
        return {**params, "variant": variant.removesuffix("Interface")}
    except (AssertionError, AttributeError, KeyError, TypeError):
        raise ConfigError(f"{file} holds no config of a model.") from None


def _builds_or_refers(content: Any) -> bool:
    if isinstance(content, dict):
        return "_target_" in content or any(map(_builds_or_refers, content.values()))
    return any(map(_builds_or_refers, content)) if isinstance(content, list) else "${" in str(content)


def overrides_for(description: Mapping[str, Any], loss: Mapping[str, Any]) -> list[str]:
    """What to type so that a training command has the imported networks' sizes."""
    quantizer = dict(description["quantizer"])
    model = {"VectorQuantizer": "vqmodel", "EMAQuantizer": "emavq"}[quantizer.pop("class")]
    values = {f"backbone.{k}": v for k, v in description["backbone"].items() if k != "class"}
    values |= {f"model.quantizer.{k}": v for k, v in quantizer.items()}
    discriminator = {"disc_ndf": "channels", "disc_num_layers": "layers"}
    values |= {f"discriminator.{ours}": loss[k] for k, ours in discriminator.items() if k in loss}
    if loss.get("use_actnorm"):
        values["discriminator.norm"] = "actnorm"
    return [
        "experiment=f16",
        f"model={model}",
        *(f"{k}={json.dumps(v, separators=(',', ':'))}" for k, v in values.items()),
    ]
