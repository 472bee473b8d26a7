"""Turn the JSON config of an older training script into an experiment recipe."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vqgan.commands.parser import command_parser
from vqgan.config.build import conf_dir
from vqgan.errors import ConfigError, InvalidValueError, StorageError
from vqgan.files.reading import load_json, read_whole
from vqgan.files.writing import replace_text
from vqgan.text import PROGRAM
from vqgan.tokenizer.taming import backbone_of, quantizer_of

LARGEST_FILE = 2**20  # bytes
MODEL_TYPES = ("TamingVQGAN", "taming_vqgan", "VQGAN", "vqgan", "EMAVQ", "emavq")
VARIANTS = {"VQModel": "vqmodel", "EMAVQ": "emavq"}
OLDER_NAMES = {"vocab_size": "n_embed", "n_init": "embed_dim"}
LOSS = "VQLPIPSWithDiscriminator"
LOSS_DEFAULTS = {"disc_start": 10000, "disc_weight": 0.8, "codebook_weight": 1.0}  # where lossconfig is missing
GAME = "loss/adversarial"  # a choice, not a value
LOSS_KEYS = {
    "disc_start": "loss.discriminator_start", "disc_weight": "loss.discriminator_weight",
    "codebook_weight": "loss.quantization_weight", "perceptual_weight": "loss.perceptual_weight",
    "disc_loss": GAME, "disc_ndf": "discriminator.channels", "disc_num_layers": "discriminator.layers",
}  # fmt: skip
MUST_BE = {"disc_conditional": False, "disc_factor": 1.0}  # settings that cannot be honoured otherwise
TRAIN_KEYS = {
    "num_steps": "trainer.steps", "batch_size": "data.batch_size", "num_workers": "data.workers", "seed": "seed",
    "weight_decay": "optimizer.weight_decay", "grad_clip": "trainer.clip_gradients",
    "gradient_accumulation_steps": "trainer.accumulate", "log_every": "trainer.log_every",
    "eval_every": "trainer.evaluate_every", "save_every": "trainer.checkpoint_every",
}  # fmt: skip
MODEL_ARGS = {"model_variant", "learning_rate", "n_embed", "embed_dim", "ddconfig", "lossconfig", "input_channels"}

EPILOG = """\
example: vqgan import-json params.json --out conf/experiment/mine.yaml

The JSON has this shape (lossconfig and most values may be missing):
  {"model_type": "TamingVQGAN",
   "model_args": {"model_variant": "EMAVQ", "learning_rate": 1e-4, "n_embed": 1024, "embed_dim": 256,
                  "ddconfig": {"z_channels": 256, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
                               "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "attn_resolutions": [16],
                               "dropout": 0.0},
                  "lossconfig": {"target": "...VQLPIPSWithDiscriminator", "params": {"disc_start": 10000}}},
   "train_args": {"num_steps": 100000}}
"""


def main() -> None:
    """`vqgan import-json PARAM.json --out conf/experiment/NAME.yaml`."""
    parser = command_parser("import-json", __doc__, EPILOG)
    parser.add_argument("file", metavar="PARAM.json", type=Path)
    parser.add_argument("--out", metavar="YAML", type=Path, required=True, help="the recipe: conf/experiment/NAME.yaml")
    arguments = parser.parse_args()
    text, dropped = recipe(read_json(arguments.file), arguments.out.stem, arguments.file.name)
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The recipe cannot be written to {arguments.out}: {error.strerror}.") from None
    replace_text(arguments.out, text)
    folder = arguments.out.resolve().parents[1]
    where = "" if folder == conf_dir().resolve() else f"--config-dir {shlex.quote(str(arguments.out.parents[1]))} "
    command = f"{PROGRAM} {where}experiment={arguments.out.stem} data=videos data.root=DIR"
    print(f"{arguments.out} is written. Train it with:\n  {command}")
    if dropped:
        print(f"Not carried, since they have no meaning here: {', '.join(dropped)}.")


def read_json(file: Path) -> Mapping[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
        ConfigError: there is no file, or it is something else.
    """
    try:
        content = load_json(read_whole(file, LARGEST_FILE))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a JSON object, not a {type(content).__name__}.")
    return content


def recipe(content: Mapping[str, Any], name: str, source: str) -> tuple[str, list[str]]:
    """The experiment's yaml, and the keys that were not carried.

    Raises:
        ConfigError: something is missing, unknown or cannot be honoured; the key is named.
    """
    model_type = content.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ConfigError(
            f"model_type must be one of {', '.join(MODEL_TYPES)}, but is {model_type!r}. "
            "vqgan import-json --help shows the shape of the file that is read."
        )
    arguments = _model_arguments(content)
    train = _section(content, "train_args")
    by_type = "EMAVQ" if str(model_type).lower() == "emavq" else "VQModel"
    variant = arguments.get("model_variant", by_type)
    if variant not in VARIANTS:
        raise ConfigError(f"model_args.model_variant must be VQModel or EMAVQ, but is {variant!r}.")
    if train.get("use_taming_loss", True) is not True:
        raise ConfigError(
            "train_args.use_taming_loss is false: only the loss of taming-transformers can be carried over."
        )
    values = _architecture(arguments, variant) | _loss(arguments)
    rate = arguments.get("learning_rate", train.get("lr"))
    if rate is not None:
        values["optimizer.lr"] = _number(
            rate, "model_args.learning_rate" if "learning_rate" in arguments else "train_args.lr"
        )
    values |= {TRAIN_KEYS[k]: _number(v, f"train_args.{k}") for k, v in train.items() if k in TRAIN_KEYS}
    known = {*TRAIN_KEYS, "lr", "use_taming_loss"}
    dropped = [f"train_args.{k}" for k in train if k not in known]
    dropped += [k for k in content if k not in ("model_type", "model_args", "train_args")]
    return _yaml(values, VARIANTS[variant], name, source, dropped), dropped


def _section(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = content.get(key, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{key} must be an object, but is {section!r}.")
    return dict(section)


def _model_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    if "model_args" not in content:
        raise ConfigError("model_args is missing.")
    arguments = _section(content, "model_args")
    for older, newer in OLDER_NAMES.items():
        if older in arguments:
            arguments.setdefault(newer, arguments.pop(older))
    unknown = sorted(arguments.keys() - MODEL_ARGS)
    if unknown:
        raise ConfigError(f"Unknown key model_args.{unknown[0]}; known are {', '.join(sorted(MODEL_ARGS))}.")
    return arguments


def _architecture(arguments: Mapping[str, Any], variant: str) -> dict[str, Any]:
    sizes = _section(arguments, "ddconfig")
    if not sizes:
        raise ConfigError("model_args.ddconfig is missing.")
    older = sizes.pop("input_channels", arguments.get("input_channels"))
    if older is not None:
        sizes.setdefault("in_channels", older)
    config = {**arguments, "ddconfig": sizes, "variant": variant}
    for key in ("n_embed", "embed_dim"):
        if not isinstance(arguments.get(key), int) or arguments[key] <= 0:
            raise ConfigError(f"model_args.{key} must be a positive whole number, but is {arguments.get(key)!r}.")
    try:
        backbone = asdict(backbone_of(config))
    except InvalidValueError as error:
        raise error.under("model_args") from None
    _, quantizer = quantizer_of(config)
    kept = ("codebook_size", "latent_dim", "commitment_weight", "codebook_weight", "decay", "eps")
    values = {f"model.quantizer.{k}": quantizer[k] for k in kept if k in quantizer}
    return {f"backbone.{k}": v for k, v in backbone.items()} | values


def _loss(arguments: Mapping[str, Any]) -> dict[str, Any]:
    config = _section(arguments, "lossconfig")
    if str(config.get("target", LOSS)).rpartition(".")[2] != LOSS:
        raise ConfigError(f"model_args.lossconfig.target must be {LOSS}, but is {config['target']!r}.")
    params = LOSS_DEFAULTS | _section(config, "params")
    path = "model_args.lossconfig.params"
    for key, value in MUST_BE.items():
        if params.pop(key, value) != value:
            raise ConfigError(f"{path}.{key} can only be {json.dumps(value)} here.")
    channels = _section(arguments, "ddconfig").get("in_channels", 3)
    if params.pop("disc_in_channels", channels) != channels:
        raise ConfigError(f"{path}.disc_in_channels must be ddconfig.in_channels: the discriminator sees frames.")
    norm = "actnorm" if params.pop("use_actnorm", False) else "batch"
    params.pop("pixelloss_weight", None)  # stored by the reference, but never used
    unknown = sorted(params.keys() - LOSS_KEYS.keys())
    if unknown:
        raise ConfigError(f"Unknown key {path}.{unknown[0]}; known are {', '.join(sorted({*LOSS_KEYS, *MUST_BE}))}.")
    words = {k: v for k, v in params.items() if k == "disc_loss"}
    if any(word not in ("hinge", "vanilla") for word in words.values()):
        raise ConfigError(f"{path}.disc_loss must be hinge or vanilla, but is {words['disc_loss']!r}.")
    numbers = {k: _number(v, f"{path}.{k}") for k, v in params.items() if k != "disc_loss"}
    return {LOSS_KEYS[k]: v for k, v in (numbers | words).items()} | {"discriminator.norm": norm}


def _number(value: object, key: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"{key} must be a number of at least 0, but is {value!r}.")
    return value


def _yaml(values: Mapping[str, Any], model: str, name: str, source: str, dropped: list[str]) -> str:
    tree = OmegaConf.create({"name": name})
    for key, value in values.items():
        if key != GAME:
            OmegaConf.update(tree, key, value, force_add=True)
    game = f"  - override /{GAME}: {values[GAME]}\n" if GAME in values else ""
    not_carried = f"# Not carried from {source}: {', '.join(dropped)}.\n" if dropped else ""
    return (
        "# @package _global_\n"
        f"# What does the recipe of {source} give?\n"
        f"# python train.py experiment={name} data=videos data.root=DIR\n"
        f"{not_carried}"
        "# The reference stores pixelloss_weight but never uses it, so no such weight is here.\n"
        "defaults:\n"
        "  - override /backbone: f16\n"
        f"  - override /model: {model}\n"
        "  - override /discriminator: patchgan\n"
        "  - override /loss: vqgan\n"
        f"{game}"
        "  - override /optimizer: adam\n"
        "  - override /trainer: long\n"
        f"\n{OmegaConf.to_yaml(tree)}"
    )
