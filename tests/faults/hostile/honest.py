"""An honest run, an honest export and an honest config of another software, to spoil."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.support.parts import PLAIN
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.config.build import conf_dir
from vqgan.quantizers import EMAQuantizer
from vqgan.runs.checkpoint import _with_digest

MIB = 2**20
BACKBONE: dict[str, Any] = {
    "resolution": 16, "image_channels": 3, "channels": 4, "channel_multipliers": [1, 1], "residual_blocks": 1,
    "attention_resolutions": [], "norm_groups": 2, "dropout": 0.0, "latent_channels": 4,
}  # fmt: skip
QUANTIZER: dict[str, Any] = {
    "codebook_size": 8, "latent_dim": 4, "commitment_weight": 0.25, "decay": 0.9, "eps": 1e-5,
    "start_from_data": True, "revive_after": None,
}  # fmt: skip
DESCRIPTION = {
    "format": 2,
    "backbone": {"class": "Convolutional", **BACKBONE},
    "quantizer": {"class": "EMAQuantizer", **QUANTIZER},
}
TAMING: dict[str, Any] = {
    "target": "taming.models.vqgan.VQModel",
    "params": {
        "embed_dim": 4, "n_embed": 8,
        "ddconfig": {"double_z": False, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
                     "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0},
        "lossconfig": {"target": "x", "params": {"disc_ndf": 64, "disc_num_layers": 2}},
    },
}  # fmt: skip


def parts() -> dict[str, Any]:
    network = nn.Linear(3, 3)
    return {"network": network, "optimizer": torch.optim.Adam(network.parameters())}


@functools.cache
def honest_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = Autoencoder(Convolutional(**BACKBONE), EMAQuantizer(**QUANTIZER)).state_dict()
    return state


def small() -> list[str]:
    """Overrides for a run of the sizes above."""
    sizes = {f"backbone.{k}": v for k, v in BACKBONE.items()} | {
        f"model.quantizer.{k}": v for k, v in QUANTIZER.items()
    }
    return [
        *PLAIN, "logger=none", "trainer.steps=1", "trainer.device=cpu", "data.workers=0", "data.validation_clips=2",
        "data.batch_size=2", "data.videos=2", "data.video_frames=4", "discriminator.channels=4",
        *(f"{key}={'null' if value is None else value}" for key, value in sizes.items()),
    ]  # fmt: skip


@functools.cache
def honest_config() -> str:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["run_dir=run", *small()])
    return OmegaConf.to_yaml(config, resolve=False)


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save({"autoencoder": state}, file)
    return file.getvalue()


def a_run(folder: Path, config: str | None = None, state: Any = None) -> Path:
    """A run folder as training leaves it, with the config or the autoencoder's state replaced."""
    folder.mkdir()
    (folder / "config.yaml").write_text(honest_config() if config is None else grown(config))
    (folder / "overrides.yaml").write_text("[]")
    (folder / "metrics.jsonl").write_text('{"step": 1, "time": 0.0, "validation/psnr": 20.0}\n')
    checkpoint = folder / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").write_bytes(saved(honest_state() if state is None else state))
    signed(checkpoint, score=20.0)
    for link in ("latest", "best"):
        (folder / "checkpoints" / link).symlink_to(checkpoint.name)
    return folder


def an_export(folder: Path, description: object = DESCRIPTION, state: Mapping[str, Tensor] | None = None) -> Path:
    """An exported folder."""
    folder.mkdir()
    text = description if isinstance(description, str) else json.dumps(description)
    (folder / "config.json").write_text(grown(text))
    save_file(dict(state or honest_state()), folder / "model.safetensors")
    return folder


def grown(text: str) -> str:
    """A text as it is written: the words HUGE and MANY stand for what would make every fork slow."""
    if "HUGE" in text:
        return text.replace("HUGE", "x" * 100 * MIB)
    return text.replace('"MANY"', "[" + "1," * 10**7 + "1]") if "MANY" in text else text


def with_value(tree: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of nested dicts in which one value differs."""
    changed = copy.deepcopy(dict(tree))
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node[parent]
    node[last] = value
    return changed


def config_with(path: str, value: object) -> str:
    """The honest run's config.yaml in which one value differs."""
    return yaml.safe_dump(with_value(yaml.safe_load(honest_config()), path, value), sort_keys=False)


def signed(folder: Path, step: object = 1, score: object = None, **other: object) -> None:
    """Write a manifest that fits, as whoever makes a hostile checkpoint would."""
    file = folder / "state.pt"
    content = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
    files = {"state.pt": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    manifest = {"step": step, "score": score, "torch": torch.__version__, "files": files, **other}
    (folder / "manifest.json").write_text(_with_digest(manifest))


def a_taming_config(file: Path, text: str | None = None) -> Path:
    file.write_text(yaml.safe_dump({"model": TAMING}) if text is None else text)
    return file
