"""The benchmarks run, at a toy size."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.token_folders import write_tokens
from tests.support.tokenizers import write_videos

BENCH = Path(__file__).resolve().parents[2] / "bench"
PATIENCE = 280  # seconds
TOY = (
    "backbone=tiny", "backbone.channels=8", "backbone.resolution=32", "discriminator=patchgan_small",
    "discriminator.channels=4", "model.quantizer.codebook_size=32", "trainer.device=cpu", "optimizer=adam_fast",
)  # fmt: skip
PROCESSES = [
    "--rounds", "1", "--steps", "2", "--most", "2", "--configs", "f8", "backbone.channels=8", "backbone.norm_groups=4",
    "backbone.resolution=32", "discriminator.channels=4", "model.quantizer.codebook_size=32",
]  # fmt: skip
RUNS = {
    "cost.py": (["--machines", "h100", *TOY], ["bottleneck", "| 1024 |", "a corpus of 1,000,000,000 clips"]),
    "step.py": (["--rounds", "1", *TOY], ["times as fast", "ours, bf16", "perceptual", "outside networks"]),
    "clips.py": (
        ["--rounds", "1", "--pictures", "tiny", *TOY, "backbone=causal_tiny", "model=vqmodel"],
        ["| training |", "| encoding |", "| causal_tiny |"],
    ),
    "handover.py": (
        ["--megabytes", "1", "--workers", "1", "--batches", "2", "--rounds", "1"],
        ["| vqgan |", "| DataLoader |", "| DataLoader, torch.stack |"],
    ),
    "touched.py": (["TOKENS", "TOKENS", "--draws", "2"], ["| held out |", "| all of training |", "of 300 touched"]),
    "encode.py": (["VIDEOS", "--resolution", "16", "--rounds", "1"], ["frames/s", "reading alone"]),
    "quantizer.py": (
        ["--latents", "64", "--codes", "16", "2000", "--dimensions", "4", "--rounds", "1"],
        ["MiB beyond", "| 64 | 2000 | 4 |"],
    ),
    "kernels.py": (["--batches", "1,2", *TOY, "loss=no_perceptual"], ["between steps", "| ours, bf16 | 2 |", "conv"]),
    "reader.py": (
        ["--frames", "40", "--size", "64x48", "--gop", "12", "--clips", "2", "--rounds", "1"],
        ["decoding alone", "time as a multiple of ours"],
    ),
    "shards.py": (
        ["VIDEOS", "--resolution", "16", "--clip-frames", "2", "--batches", "1", "--latency", "0.01", "--rounds", "1"],
        ["10 ms away, 8 workers", "16 ranges at once"],
    ),
    "quality.py": (
        ["VIDEOS", "VIDEOS", "--out", "study", "--seconds", "2", "--seeds", "1", "--rounds", "1", "--recipes", "TOYS"],
        ["| first | ", "| second | ", "codes used", "gain, dB"],
    ),
    "prior.py": (
        ["TOKENS", "--rounds", "1", "--steps", "1", "prior=tiny", "trainer.device=cpu"],
        ["forward and backward", "ratio"],
    ),
    "scaling.py": (["--rounds", "1", "--points", "2", *TOY], ["exponent", "data.clip_frames"]),
}


def test_every_script_is_run_here() -> None:
    scripts = {path.name for path in BENCH.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == {*RUNS, "processes.py", "check.py", "gpu.py"}


@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_a_benchmark_prints_its_table(script: str, tmp_path: Path) -> None:
    arguments, expected = RUNS[script]
    if "VIDEOS" in arguments:
        write_videos(tmp_path / "VIDEOS")
    if "TOKENS" in arguments:
        write_tokens(tmp_path / "TOKENS")
    small = ["backbone=tiny", "backbone.channels=8", "backbone.resolution=32", "loss.discriminator_start=2"]
    (tmp_path / "TOYS").write_text(json.dumps({"first": small, "second": [*small, "model=fsq"]}))
    command = [sys.executable, str(BENCH / script), *arguments]
    code, printed, error = finished(command, tmp_path)
    assert code == 0, error
    assert [text for text in expected if text not in printed] == []


def finished(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of a command; one that hangs says where, as all it has started is ended."""
    environment = os.environ | {"PYTHONFAULTHANDLER": "1"}
    out, err = (folder / name for name in ("printed", "errors"))  # files: what lives on would hold pipes open
    with out.open("w") as printed, err.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdout=printed, stderr=errors, env=environment, start_new_session=True
        )
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            code = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return code, out.read_text(), err.read_text()


@pytest.mark.slow
def test_predictions_are_compared_with_what_was_measured(tmp_path: Path) -> None:
    file, printed = tmp_path / "points.json", []
    for script, *arguments in [["processes.py", *PROCESSES, "--out", str(file)], ["check.py", str(file)]]:
        code, output, error = finished([sys.executable, str(BENCH / script), *arguments], tmp_path)
        assert code == 0, error
        printed.append(output)
    measured, predicted = printed
    assert [text for text in ("| f8 | 8 | 2 × 1 |", "broadcast object", "during it") if text not in measured] == []
    rows = [line.split(" | ") for line in predicted.splitlines() if line.startswith("| f8 |")]
    assert [(row[1], row[2]) for row in rows] == [(str(batch), str(n)) for n in (1, 2) for batch in (2, 4, 8)]
    assert [row[5] == "fitted" for row in rows] == [False, True, False, False, False, False]
    assert rows[1][3] == rows[1][4]  # where it is fitted it is right


def rehearse(out: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """The exit code of bench/gpu.sh on the processor, and what it wrote."""
    environment = os.environ | {"OUT": str(out), "PYTHON": sys.executable}
    command = ["bash", str(BENCH / "gpu.sh"), "--cpu", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent, env=environment, check=False)
    assert (out / "gpu.json").exists(), done.stderr
    return done.returncode, json.loads((out / "gpu.json").read_text()), (out / "gpu.md").read_text()


@pytest.mark.slow
def test_one_command_runs_the_chosen_stages_of_a_gpus_benches(tmp_path: Path) -> None:
    code, found, text = rehearse(tmp_path / "out", "--stages", "quantizer")
    assert code == 0, text
    assert found["stages"]["quantizer"]["outcome"] == "done"
    assert found["stages"]["quantizer"]["tables"][0][0]["codes"] == "16"
    assert "| quantizer | done |" in text


@pytest.mark.slow
def test_a_stage_without_time_does_not_end_the_others_nor_count_as_done(tmp_path: Path) -> None:
    code, found, text = rehearse(tmp_path / "out", "--stages", "quantizer,step", "--seconds", "1.2")
    assert code == 1
    outcomes = [stage["outcome"] for stage in found["stages"].values()]
    assert outcomes == ["stopped at 1 s", "no time left"], text


@pytest.mark.slow
def test_all_stages_of_a_gpus_benches_are_kept_runnable(tmp_path: Path) -> None:
    code, found, text = rehearse(tmp_path / "out")
    assert code == 0, text
    assert {stage["outcome"] for stage in found["stages"].values()} == {"done"}
    assert [name for name, stage in found["stages"].items() if not stage["tables"]] == ["tests"]
    assert "skipped" in found["stages"]["tests"]["tail"]


@pytest.mark.slow
def test_a_study_goes_on_and_refuses_a_recipe_that_has_changed(tmp_path: Path) -> None:
    write_videos(tmp_path / "VIDEOS")
    recipe = ["backbone=tiny", "backbone.channels=8", "backbone.resolution=32", "model=fsq"]
    outputs = []
    for seeds, last in ((["1"], "model=fsq"), (["1", "2"], "model=fsq"), (["1"], "model=cosine")):
        (tmp_path / "recipes.yaml").write_text(json.dumps({"only": [*recipe[:-1], last]}))
        command = [
            sys.executable, str(BENCH / "quality.py"), "VIDEOS", "VIDEOS", "--out", "study", "--seconds", "1",
            "--seeds", *seeds, "--rounds", "1", "--recipes", "recipes.yaml",
        ]  # fmt: skip
        outputs.append(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False))
    begun, gone_on, refused = outputs
    assert (begun.returncode, gone_on.returncode, refused.returncode) == (0, 0, 1), gone_on.stderr
    assert "only, seed 1: " in begun.stdout
    assert "only, seed 1: " not in gone_on.stdout
    assert "only, seed 2: " in gone_on.stdout
    assert "only was begun in study with 1.0 s" in refused.stderr
    known = json.loads((tmp_path / "study" / "quality.json").read_text())["only"]
    assert known["operations"] > known["steps"] * 1e6  # a step of so small a network has some millions
