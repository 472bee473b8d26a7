"""Small priors, and token folders of which it is known what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from vqgan.config.build import conf_dir
from vqgan.tokens.records import smallest_type
from vqgan.tokens.writer import ShardWriter

SMALL = (
    "prior=tiny", "prior.dim=32", "prior.hidden=64", "prior.heads=2", "prior.dropout=0.0", "logger=none",
    "trainer.device=cpu", "trainer.log_every=1", "schedule.warmup_steps=2", "data.clip_times=4", "data.batch_size=4",
    "data.val_fraction=0.3", "bootstrap.replicates=50",
)  # fmt: skip


def prior_config(tokens: Path, folder: Path, *overrides: str) -> DictConfig:
    """As the command line composes it, for a small run."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("prior", [f"data.root={tokens}", f"run_dir={folder}", *SMALL, *overrides])


def write_codes(folder: Path, videos: dict[str, np.ndarray], size: int, **manifest: Any) -> Path:
    """A token folder of these codes, 25 frames a second."""
    folder.mkdir()
    about = {"format": 2, "codebook_size": size, "tokenizer": "0" * 64, **manifest}
    (folder / "manifest.json").write_text(json.dumps(about))
    writer = ShardWriter(folder, "shard-000-00", smallest_type(size), 10**9)
    for path, codes in videos.items():
        writer.add(codes.astype(smallest_type(size)))
        writer.finish(path, 0.04, np.arange(len(codes)), 64, 48)
    writer.close()
    return folder


def markov(shape: tuple[int, int, int], back: int, seed: int) -> tuple[np.ndarray, float]:
    """Codes of a Markov chain whose state is the code `back` places before, row by row, and its bits a code.

    The first `back` codes are evenly distributed, as the chain is: each row of its matrix is the one before, turned.
    """
    shares = np.array([0.7, 0.15, 0.1, 0.05])
    rng = np.random.default_rng(seed)
    steps = rng.choice(4, size=int(np.prod(shape)), p=shares)
    codes = rng.integers(4, size=len(steps))
    for place in range(back, len(codes)):
        codes[place] = (codes[place - back] + steps[place]) % 4
    return codes.reshape(shape), float(-(shares * np.log2(shares)).sum())
