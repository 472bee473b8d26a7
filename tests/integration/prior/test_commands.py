"""`vqgan prior` and `vqgan sample` as they are typed: from videos to continuations of them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.priors import SMALL
from tests.support.tokenizers import write_tokenizer, write_videos
from vqgan import commands
from vqgan.commands.prior import as_overrides
from vqgan.errors import ConfigError
from vqgan.video.file import scan_video

QUICK = ("device=cpu", "workers=0", "index=null")
FEW = ("times=4", "prompt_times=2", "videos=2", "device=cpu")


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vqgan", *map(str, arguments)])
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)  # what `main` sets is taken back
    try:
        commands.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.slow
def test_from_videos_to_a_prior_and_its_continuations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "tokenizer", codes=30)
    write_videos(tmp_path / "videos")
    assert typed(monkeypatch, "encode", "tokenizer", "videos", "--out", "tokens", *QUICK, "square=true") == 0
    small = (*SMALL, "trainer.steps=4", "run_dir=run")
    assert typed(monkeypatch, "prior", "tokens", *small) == 0
    said = capsys.readouterr().out
    assert "What the tokens cost" in said
    assert "bits per token" in said
    assert "bits per pixel" in said
    told = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    side = 16  # pixels, at which this tokenizer was trained, in grids of 4 × 4 or so
    reading = json.loads((tmp_path / "tokens" / "manifest.json").read_text())["reading"]
    assert reading["resolution"] == side
    frame, pixel = (told["metrics"][f"bits_per_{unit}"]["value"] for unit in ("frame", "pixel"))
    assert frame / pixel == pytest.approx(side * side)
    assert "bits_per_token" in (tmp_path / "run" / "report.html").read_text()

    assert typed(monkeypatch, "prior", "tokens", *small) == 0
    assert "Nothing left to train" in capsys.readouterr().out
    assert typed(monkeypatch, "prior", "resume=run") == 0
    assert "Nothing left to train" in capsys.readouterr().out

    assert typed(monkeypatch, "sample", "run", "--out", "more", *FEW) == 0
    assert "continuations of step" in capsys.readouterr().out.replace("continuation of", "continuations of")
    (video, *_) = sorted((tmp_path / "more").rglob("*.mp4"))
    found = scan_video(video)[0]
    assert found.displayed_size == (2 * side, side)
    assert len(found.pts) == 4
    assert list((tmp_path / "run" / "reconstructions").glob("step-*.png"))
    first = video.read_bytes()
    assert typed(monkeypatch, "sample", "run", "--out", "again", *FEW) == 0
    assert (tmp_path / "again" / video.relative_to(tmp_path / "more")).read_bytes() == first
    assert typed(monkeypatch, "sample", "run", "--out", "more", *FEW, "seed=1") == 2
    assert "seed was 0 and is 1. Choose another --out" in capsys.readouterr().err

    shutil.move(tmp_path / "tokenizer", tmp_path / "moved")
    assert typed(monkeypatch, "sample", "run", "--out", "third", *FEW) == 2
    assert "If the tokenizer was moved, name it: --tokenizer RUN." in capsys.readouterr().err
    write_tokenizer(tmp_path / "other", codes=30, seed=1)
    assert typed(monkeypatch, "sample", "run", "--out", "third", "--tokenizer", "other", *FEW) == 2
    assert "its weights are others" in capsys.readouterr().err
    shutil.move(tmp_path / "tokens", tmp_path / "elsewhere")
    where = ("--tokenizer", "moved", "--tokens", "elsewhere")
    assert typed(monkeypatch, "sample", "run", "--out", "third", *where, *FEW) == 0
    assert typed(monkeypatch, "sample", "moved", "--out", "fourth", *FEW) == 2
    assert "moved is not the run of a prior" in capsys.readouterr().err
    assert typed(monkeypatch, "encode", "run", "videos", "--out", "fifth", *QUICK) == 2
    assert "run is the run of a prior, and no tokenizer" in capsys.readouterr().err


def test_the_token_folder_is_typed_without_a_key() -> None:
    assert as_overrides(["to'kens", "prior=tiny", "-m"]) == [
        "--config-name", "prior", "data.root='to\\'kens'", "prior=tiny", "-m",
    ]  # fmt: skip
    assert as_overrides(["resume=run", "trainer.steps=5"]) == ["resume=run", "trainer.steps=5"]
    own = ["--config-dir", "mine", "tokens", "~logger"]
    assert as_overrides(own) == ["--config-name", "prior", "data.root='tokens'", "--config-dir", "mine", "~logger"]
    for arguments, said in (
        ([], "Name the folder of tokens"),
        (["a", "b"], "takes one folder of tokens"),
        (["a", "resume=run"], "leave a out"),
    ):
        with pytest.raises(ConfigError, match=said):
            as_overrides(arguments)


def test_errors_name_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (("nowhere",), "nowhere"),
        (("nowhere", "prior.layer=3"), "prior.layer"),
        (("nowhere", "prior=huge"), "prior=huge: there is no such choice"),
        (("nowhere", "backbone=f8"), "backbone"),
    ):
        assert typed(monkeypatch, "prior", *arguments, "logger=none") == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
