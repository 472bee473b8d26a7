"""`vqgan pack` as it is typed: from videos to what other engines read, alone and by several processes, killed too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vqgan
import vqgan.packing
import vqgan.tokens
from tests.support.token_folders import contents, write_tokens
from tests.support.tokenizers import write_tokenizer, write_videos
from vqgan import commands

ROOT = Path(__file__).resolve().parents[3]
VQGAN = "from vqgan.commands import main; main()"
MANY = {f"{number:02}.mp4": (40, 128, 128) for number in range(48)}


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vqgan", *map(str, arguments)])
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)  # what `main` sets is taken back
    try:
        commands.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", VQGAN, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_from_videos_to_a_pack_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    write_videos(tmp_path / "videos")
    np.save(tmp_path / "videos" / "a.npy", np.arange(21))
    quick = ("device=cpu", "workers=0", "index=null")
    assert (
        typed(monkeypatch, "encode", tmp_path / "tokenizer", tmp_path / "videos", "--out", tmp_path / "t", *quick) == 0
    )
    capsys.readouterr()
    arguments = ("pack", tmp_path / "t", "--out", tmp_path / "pack", "--tokenizer", tmp_path / "tokenizer")
    assert typed(monkeypatch, *arguments) == 3
    assert "Side data of b.mkv: none; of a.mp4: int64 numbers of shape () a frame" in capsys.readouterr().err
    assert typed(monkeypatch, *arguments, "side=false", "end_of_frame=true") == 0
    assert capsys.readouterr().out.startswith("2 chunks packed. Tokens: ")
    tokens = {video.path: video for video in vqgan.tokens.open(tmp_path / "t")}
    documents = [d for split in ("train", "val") for d in vqgan.packing.open(tmp_path / "pack" / split)]
    assert sorted(document.path for document in documents) == sorted(tokens)
    for document in documents:
        np.testing.assert_array_equal(document.codes, tokens[document.path].codes)
    tokenizer = vqgan.load(tmp_path / "tokenizer")
    np.testing.assert_array_equal(np.load(tmp_path / "pack" / "codebook.npy"), tokenizer.quantizer.codebook)
    meta = vqgan.packing.open(tmp_path / "pack" / "val").meta
    assert meta["tokenizer"] == tokenizer.sha256()
    assert meta["codebook"] == "codebook.npy"
    write_tokenizer(tmp_path / "other", seed=1)
    arguments = ("pack", tmp_path / "t", "--out", tmp_path / "pack2", "--tokenizer", tmp_path / "other")
    assert typed(monkeypatch, *arguments) == 2
    assert "was encoded by a tokenizer with other weights than" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_that_are_killed_end_with_the_same_bytes(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", MANY)
    arguments = ("pack", tmp_path / "tokens", "chunk_megabytes=1", "window=15", "overlap=3")
    alone = start(*arguments, "--out", tmp_path / "alone")
    assert alone.communicate(timeout=200)[0].startswith("48 chunks packed. Tokens: ")
    out, kills = tmp_path / "together", 0
    while True:
        ranks = range(2)
        processes = [
            start(*arguments, "--out", out, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2") for rank in ranks
        ]
        marks = len(list(out.glob(".unfinished/*-0*")))
        while any(process.poll() is None for process in processes):
            if kills < 1 and len(list(out.glob(".unfinished/*-0*"))) > marks + 1:
                for process in processes:
                    process.kill()
                break
            time.sleep(0.001)
        said = [process.communicate(timeout=200) for process in processes]
        if all(process.returncode == 0 for process in processes):
            break
        assert all(process.returncode in (0, -9) for process in processes), said
        kills += 1
    assert kills > 0
    left = {name for name in contents(out) if Path(name).name.startswith(".")}
    assert {name: content for name, content in contents(out).items() if name not in left} == contents(
        tmp_path / "alone"
    )
