"""A study of rate and distortion: one command, which goes on wherever it was killed, and does nothing twice."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from tests.faults.test_sweep import state, wait_for
from tests.support.priors import SMALL
from tests.support.runs import digest, finish, rows, start
from vqgan.runs.status import status_of

PRIOR = ",".join(f"'{value}'" for value in (*SMALL, "trainer.steps=12", "trainer.checkpoint_every=2"))
STUDY = (
    "-m", "sweep=rate", "model.quantizer.codebook_size=8,16", "backbone.channel_multipliers=[1,2]",
    "trainer.steps=4", "data.clip_frames=2", "data.index=null",
    f"hydra.callbacks.sweep.prior=[{PRIOR}]", "hydra.callbacks.sweep.evaluate=['replicates=20']",
)  # fmt: skip


ANEW = (".lock", "rates.", "sweep.yaml", "multirun.yaml")  # at every start


def written(folder: Path) -> dict[str, int]:
    """When each file of the study was written."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(ANEW)]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def plane(folder: Path) -> list[dict[str, str]]:
    with (folder / "rates.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    code, out, err = finish(start(whole, *STUDY, **cache), 300)
    assert code == 0, err
    assert "Rate and distortion" in out

    process = start(cut, *STUDY, **cache)
    wait_for(process, cut / "priors" / "0" / "metrics.jsonl", '"step": 6')
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert state(cut / "0") == "finished"
    assert state(cut / "priors" / "0") == "interrupted"
    kept = {name: time for name, time in written(cut).items() if name.startswith("0/")}
    process = start(cut, *STUDY, **cache)
    wait_for(process, cut / "priors" / "1" / "metrics.jsonl", '"step": 2')
    os.kill(process.pid, signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 143, err
    assert "It goes on after step" in out
    assert "Traceback" not in err
    assert f"its own command, with run_dir={cut}" in err
    code, out, err = finish(start(cut, *STUDY, **cache), 300)
    assert code == 0, err
    assert kept == {name: time for name, time in written(cut).items() if name.startswith("0/")}

    for number in "01":
        assert digest(cut / "priors" / number) == digest(whole / "priors" / number)
        assert rows(cut / "priors" / number) == rows(whole / "priors" / number)
    assert plane(cut) == plane(whole)
    names = [row["name"] for row in plane(cut)]
    assert sorted(names[:2]) == ["0 under priors/0", "1 under priors/1"]
    assert [row["curve"] for row in plane(cut)[2:]] == ["libx264"] * 6
    for row in plane(cut):
        assert float(row["bits_per_second"]) > 0
        assert float(row["psnr"]) > 0
    codec = json.loads((cut / "evaluation" / "libx264_crf=30.json").read_text())
    data, bits = codec["protocol"]["data"], codec["metrics"]["bits_per_pixel"]["value"]
    (row,) = (row for row in plane(cut) if row["name"].endswith("crf=30"))
    assert float(row["bits_per_second"]) == pytest.approx(bits * 16**2 * 24)  # frames a second of synthetic videos
    assert data["seconds"] == pytest.approx(data["frames"] / 24)

    before = written(cut)
    code, out, err = finish(start(cut, *STUDY, **cache), 300)
    assert code == 0, err
    assert "Training" not in out
    assert written(cut) == before


@pytest.mark.slow
def test_a_stage_that_fails_is_one_line_and_is_tried_again(tmp_path: Path) -> None:
    folder, cache = tmp_path / "S", {"XDG_CACHE_HOME": str(tmp_path)}
    study = [value for value in STUDY if "sweep.prior" not in value]
    wrong = "hydra.callbacks.sweep.prior=['logger=none','prior.layers=0']"
    code, out, err = finish(start(folder, *study, wrong, "hydra.callbacks.sweep.codecs=[]", **cache), 300)
    assert code == 2, err
    assert "Traceback" not in err
    assert "jobs 0, 1 failed: prior: prior.layers must be positive, but is 0." in " ".join(out.split())
    found = status_of(folder / "0")
    assert found is not None
    assert found.exit_code == 2
    assert not (folder / "rates.html").exists()
    code, out, err = finish(start(folder, *STUDY, "hydra.callbacks.sweep.codecs=[]", **cache), 300)
    assert code == 0, err
    assert "Nothing left to train" in out
    assert len(plane(folder)) == 2
