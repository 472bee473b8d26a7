"""gFVD: rFVD's network and distance, between videos, what the tokenizer makes of them, and continuations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.integration.evaluation.test_evaluate import make_videos
from tests.integration.prior.test_commands import QUICK, typed
from tests.support.feature_files import i3d_file, publish
from tests.support.priors import SMALL
from tests.support.tokenizers import write_tokenizer
from tests.unit.evaluation.test_evaluator import by_samples
from vqgan.errors import ConfigError
from vqgan.evaluation import networks
from vqgan.prior.gfvd import Gfvd, original
from vqgan.tokens.folder import Tokens
from vqgan.video.file import scan_video
from vqgan.video.reader import read_frames


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a stand-in, as if it had been published."""
    file = i3d_file(tmp_path)
    publish(file, monkeypatch, "I3D_TORCHSCRIPT")
    return file


def test_it_is_the_distance_of_the_features(network: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (6, 10, 8, 8, 3)
    clips = [rng.integers(50 * kind, 100 + 50 * kind, shape).astype(np.uint8) for kind in range(3)]
    judge = Gfvd(str(network), False, 10, torch.device("cpu"))
    for of_video in zip(*clips):
        judge.add(*of_video)
    judge.add(*(some[0, :9] for some in clips))  # shorter ones are no samples of it
    i3d = networks.I3D(network)
    originals, decoded, made = (i3d(torch.from_numpy(some)).double().numpy() for some in clips)
    found = judge.metrics()
    assert found["gfvd"].value == pytest.approx(by_samples(originals, made), rel=1e-4)
    assert found["gfvd_decoded"].value == pytest.approx(by_samples(decoded, made), rel=1e-4)
    assert (found["gfvd"].reason or "").startswith("of 6 clips of 10 frames; only 6 samples for 400 features")


def test_what_it_needs_is_named(network: Path, tmp_path: Path) -> None:
    device = torch.device("cpu")
    with pytest.raises(ConfigError, match="needs clips of at least 10 frames, and these have 9: give more times"):
        Gfvd(str(network), False, 9, device)
    with pytest.raises(ConfigError, match=r"cannot be had: weights.i3d=…/gone.pt is not there\.$"):
        Gfvd(str(tmp_path / "gone.pt"), False, 10, device)


@pytest.mark.slow
def test_it_is_measured_where_continuations_are_made(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "tokenizer", codes=30)
    make_videos(tmp_path / "videos", 8, 24)
    assert typed(monkeypatch, "encode", "tokenizer", "videos", "--out", "tokens", *QUICK, "square=true", "fps=12") == 0
    assert typed(monkeypatch, "prior", "tokens", *SMALL, "trainer.steps=3", "run_dir=run", "data.val_fraction=0.5") == 0
    asked = ("times=11", "videos=8", "device=cpu", "gfvd=true", f"weights.i3d={network}")
    assert typed(monkeypatch, "sample", "run", "--out", "more", *asked) == 0
    told = json.loads((tmp_path / "more" / "evaluation.json").read_text())
    assert told["metrics"]["gfvd"]["value"] > 0
    assert told["metrics"]["gfvd_decoded"]["value"] > 0
    assert told["protocol"]["data"]["clip_frames"] == 11
    assert told["protocol"]["sampling"]["prompt_times"] == 2
    assert str(tmp_path) not in json.dumps(told)
    assert "gfvd_decoded" in capsys.readouterr().out

    tokens = Tokens(tmp_path / "tokens")
    video = scan_video(tmp_path / "videos" / "3.mp4")[0]
    found = original(tokens, "3.mp4", 11, None)
    np.testing.assert_array_equal(found, read_frames(video, np.arange(0, 22, 2), 16))
    (tmp_path / "videos").rename(tmp_path / "moved")
    assert typed(monkeypatch, "sample", "run", "--out", "again", *asked) == 2
    assert "If they were moved, name their folder: --videos VIDEOS." in capsys.readouterr().err
    assert typed(monkeypatch, "sample", "run", "--out", "third", *asked, "--videos", "moved") == 0
    assert json.loads((tmp_path / "third" / "evaluation.json").read_text())["metrics"] == told["metrics"]
