"""The ready files of `docs/referee.md` for diffusers' classes, run through the command with small random weights."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.commands.test_command_line import Ended
from tests.integration.evaluation.test_evaluate import make_videos, read, typed
from tests.unit.evaluation.test_referee_page import FILES
from vqgan.evaluation.function import FromFunction

__all__ = ["typed"]  # a fixture

TWO_LEVELS = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "norm_num_groups": 4,
    "latent_channels": 4,
}
FOUR = (8, 8, 8, 8)
SMALL: dict[str, tuple[str, dict[str, Any]]] = {  # of each class the ready file, and sizes
    "VQModel": ("diffusers' VQModel", TWO_LEVELS | {"num_vq_embeddings": 32}),
    "AutoencoderKL": ("diffusers' AutoencoderKL", TWO_LEVELS),
    "AutoencoderKLWan": (
        "Wan",
        {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "latents_mean": [0.0] * 4,
         "latents_std": [1.0] * 4},
    ),
    "AutoencoderKLCosmos": (
        "Wan",
        {"latent_channels": 4, "encoder_block_out_channels": FOUR, "decode_block_out_channels": FOUR,
         "attention_resolutions": (), "resolution": 32, "num_layers": 1, "latents_mean": None, "latents_std": None},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_gives_what_the_class_gives(
    name: str, typed: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # not needed, and of another build than torch here and there
    diffusers = pytest.importorskip("diffusers")
    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name}")
    torch.manual_seed(0)
    ready, sizes = SMALL[name]
    model = getattr(diffusers, name)(**sizes).eval()
    model.save_pretrained(tmp_path / "weights")
    text, found = re.subn(r'from_pretrained\("[^"]+"(, subfolder="\w+")?', 'from_pretrained("weights"', FILES[ready])
    assert found == 1
    (tmp_path / "theirs.py").write_text(text.replace("AutoencoderKLWan", name) if ready == "Wan" else text)

    make_videos(tmp_path / "mine", 2, 9)
    sampling = ("data.resolution=32", "data.clip_frames=9", "data.workers=0", "data.index=null")
    ended = typed("python:theirs.py:reconstruct", "mean-colour", "--data", "mine", "--out", "out", *sampling)
    assert ended.code == 0, ended.error
    metrics = read(tmp_path / "out" / "python_theirs.py_reconstruct.json")["metrics"]
    assert math.isfinite(metrics["psnr"]["value"])
    rate = math.log2(32) / 2**2 if name == "VQModel" else None
    assert metrics["bits_per_pixel"]["value"] == (rate if rate is None else pytest.approx(rate))

    clips = torch.rand(2, 9, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        made = FromFunction("theirs.py:reconstruct").function(clips)
        made = made[0] if isinstance(made, tuple) else made
        if ready == "Wan":
            expected = model(clips.transpose(1, 2)).sample.transpose(1, 2)
        else:
            expected = torch.stack([model(clip).sample for clip in clips])
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
