"""The recipes of docs/after.md do what they say, where the engines are installed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import vqgan.packing
from tests.support.token_folders import packing, write_tokens
from tests.support.tokenizers import CODES, write_tokenizer
from vqgan.packing.memmap import MemmapPacker

ROOT = Path(__file__).resolve().parents[3]
SHAPES = {f"{number}.mp4": (30, 4, 4) for number in range(8)}


def recipe(engine: str) -> str:
    """The code of the page that names an engine."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "after.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if f"from {engine}" in block]
    assert len([line for line in found.splitlines() if line.strip()]) <= 40
    return found


@pytest.mark.slow
def test_a_transformer_is_trained_measured_and_asked(tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    write_tokenizer(tmp_path / "tokenizer")
    MemmapPacker(write_tokens(tmp_path / "tokens", SHAPES, CODES), packing(), tmp_path / "pack").run()
    (tmp_path / "after.py").write_text(recipe("transformers"))
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "after.py", "pack", "tokenizer", "3", "64"],
        cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    if "operator torchvision::nms does not exist" in done.stderr:
        pytest.skip("transformers finds a torchvision that does not work")
    assert done.returncode == 0, done.stderr
    bits = re.search(r"([\d.]+) bits a token, (\d+) a second", done.stdout)
    assert bits is not None
    assert 6 < float(bits[1]) < 12  # of 300 codes at random, log2(300) = 8.2
    assert re.search(r"[2-4] frames, of which 2 were given: \([2-4], 3, 8, 8\)", done.stdout), done.stdout


@pytest.fixture
def loader(tmp_path: Path) -> Any:
    """What the recipe for torchtitan defines."""
    pytest.importorskip("torchtitan.components.dataloader", exc_type=ImportError)
    MemmapPacker(write_tokens(tmp_path / "tokens", SHAPES), packing("val_fraction=0"), tmp_path / "pack").run()
    defined: dict[str, Any] = {"__name__": "recipe"}
    sys.modules["recipe"] = SimpleNamespace(**defined)  # type: ignore[assignment]
    exec(compile(recipe("torchtitan"), "after.md", "exec"), defined)

    def load(rank: int = 0, count: int = 1) -> Any:
        config = defined["PackDataLoader"].Config(dataset_path=str(tmp_path / "pack" / "train"))
        return defined["PackDataLoader"](
            config, dp_world_size=count, dp_rank=rank, tokenizer=None, seq_len=16, local_batch_size=2
        )

    yield load
    del sys.modules["recipe"]


OF_TORCHDATA = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


@OF_TORCHDATA
def test_torchtitans_loader_gives_each_rank_its_own(loader: Any, tmp_path: Path) -> None:
    tokens = vqgan.packing.open(tmp_path / "pack" / "train").tokens.astype(np.int64)
    runs = (len(tokens) - 1) // 16
    seen = []
    for rank in range(2):
        for inputs, labels in islice(loader(rank, 2), runs // 4):
            for line, following in zip(inputs["input"], labels):
                at = [n for n in range(0, len(tokens) - 16, 16) if (tokens[n : n + 16] == line.numpy()).all()]
                assert (tokens[at[0] + 1 : at[0] + 17] == following.numpy()).all()
                seen += at
    assert len(seen) == len(set(seen)) == runs // 4 * 4


@OF_TORCHDATA
def test_torchtitans_loader_goes_on_where_it_was(loader: Any) -> None:
    first = iter(whole := loader())
    for _ in range(200):  # into a second pass
        next(first)
    state = whole.state_dict()
    expected = [next(first) for _ in range(3)]
    again = loader()
    again.load_state_dict(state)
    for (inputs, labels), (other, following) in zip(expected, again):
        assert torch.equal(inputs["input"], other["input"])
        assert torch.equal(labels, following)
