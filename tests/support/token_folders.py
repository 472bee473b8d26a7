"""Token folders without a tokenizer, and the values of packs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import vqgan.tokens
from vqgan.config.build import build
from vqgan.config.command import command_config
from vqgan.packing.plan import Packing
from vqgan.tokens.folder import Tokens
from vqgan.tokens.records import smallest_type
from vqgan.tokens.side import write_side
from vqgan.tokens.writer import ShardWriter

SIZE = 300
SHAPES = {"a.mp4": (5, 2, 3), "b/b.mp4": (3, 4, 3), "b/c.mp4": (7, 2, 3), "d.mp4": (2, 2, 3), "e.mp4": (6, 3, 2)}


def packing(*typed: str) -> Packing:
    made: Packing = build(command_config("pack", typed), "")
    return made


def codes_of(path: str, shape: tuple[int, ...], size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(list(path.encode())).integers(size, size=shape).astype(smallest_type(size))


def write_tokens(
    folder: Path,
    shapes: dict[str, tuple[int, ...]] = SHAPES,
    size: int = SIZE,
    side: tuple[int, ...] | None = None,
    frames: dict[str, int] | None = None,
    **manifest: Any,
) -> Tokens:
    """Videos of these shapes, 12.5 frames a second; `side` is the shape of a row, `frames` how many if not as many."""
    folder.mkdir()
    about = {"format": 2, "codebook_size": size, "tokenizer": "0" * 64, **manifest}
    (folder / "manifest.json").write_text(json.dumps(about))
    writer = ShardWriter(folder, "shard-000-00", smallest_type(size), 10**9)
    for path in reversed(shapes):  # not the order of their names
        codes = codes_of(path, shapes[path], size)
        if side is not None:
            rows = np.random.default_rng(list(path.encode())).normal(size=(len(codes), *side)).astype(np.float32)
            write_side(folder, path, rows)
        writer.add(codes)
        writer.finish(path, 0.04, np.arange(len(codes) if frames is None else frames[path]) * 2, 64, 48)
    writer.close()
    return vqgan.tokens.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a pack that is no lock."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".lock")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
