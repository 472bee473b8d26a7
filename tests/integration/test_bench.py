"""The benchmarks run, at a toy size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.tokenizers import write_videos

BENCH = Path(__file__).resolve().parents[2] / "bench"
TOY = (
    "backbone=tiny", "backbone.channels=8", "backbone.resolution=32", "discriminator=patchgan_small",
    "discriminator.channels=4", "model.quantizer.codebook_size=32", "trainer.device=cpu", "optimizer=adam_fast",
)  # fmt: skip
RUNS = {
    "step.py": (["--rounds", "1", *TOY], ["times as fast", "ours, bf16", "perceptual", "outside networks"]),
    "encode.py": (["VIDEOS", "--resolution", "16", "--rounds", "1"], ["frames/s", "reading alone"]),
    "quantizer.py": (
        ["--latents", "64", "--codes", "16", "2000", "--dimensions", "4", "--rounds", "1"],
        ["MiB beyond", "| 64 | 2000 | 4 |"],
    ),
    "reader.py": (
        ["--frames", "40", "--size", "64x48", "--gop", "12", "--clips", "2", "--rounds", "1"],
        ["decoding alone", "time as a multiple of ours"],
    ),
    "shards.py": (
        ["VIDEOS", "--resolution", "16", "--clip-frames", "2", "--batches", "1", "--latency", "0.01", "--rounds", "1"],
        ["10 ms away, 8 workers", "16 ranges at once"],
    ),
    "scaling.py": (["--rounds", "1", "--points", "2", *TOY], ["exponent", "data.clip_frames"]),
}


def test_every_script_is_run_here() -> None:
    scripts = {path.name for path in BENCH.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_a_benchmark_prints_its_table(script: str, tmp_path: Path) -> None:
    arguments, expected = RUNS[script]
    if "VIDEOS" in arguments:
        write_videos(tmp_path / "VIDEOS")
    command = [sys.executable, str(BENCH / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert [text for text in expected if text not in done.stdout] == []
