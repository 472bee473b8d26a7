"""Batches for a transformer, whatever grids a folder has."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import vqgan
from tests.support.token_folders import SHAPES, codes_of, write_tokens
from vqgan.errors import DataError, InvalidValueError


def test_each_is_whole_frames_of_videos_with_one_grid(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    seen = set()
    for batch in itertools.islice(tokens.batches(times=3, batch_size=4, seed=0), 50):
        assert batch.codes.shape[:2] == (4, 3)
        assert batch.inputs.shape == batch.targets.shape == (4, 3 * batch.codes.shape[2] * batch.codes.shape[3] - 1)
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        for codes, video, first in zip(batch.codes, batch.videos.tolist(), batch.times.tolist()):
            path = tokens.paths[video]
            theirs = torch.from_numpy(codes_of(path, SHAPES[path])[first : first + 3].astype("int64"))
            assert torch.equal(codes, theirs)
            seen.add((path, first))
    starts = {path: shape[0] - 2 for path, shape in SHAPES.items() if shape[0] >= 3}
    assert seen == {(path, first) for path, count in starts.items() for first in range(count)}, (
        "every place, d is short"
    )


def test_places_say_which_position_an_input_is(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", {"a.mp4": (3, 2, 4, 2)}, depth=2)
    batch = next(tokens.batches(times=2, batch_size=1, seed=3))
    assert batch.places.shape == (2 * 2 * 4 * 2 - 1, 4)
    for value, place in zip(batch.inputs[0], batch.places.tolist()):
        assert value == batch.codes[0][tuple(place)]


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    whole = list(itertools.islice(tokens.batches(2, 3, seed=5), 6))
    later = list(itertools.islice(tokens.batches(2, 3, seed=5, start=4), 2))
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(whole[4:], later))
    assert any(
        a.codes.shape != b.codes.shape or not torch.equal(a.codes, b.codes) for a, b in itertools.pairwise(whole)
    )


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    with pytest.raises(DataError, match="has no video of 8 times of codes: the longest has 7"):
        tokens.batches(8, 1, seed=0)
    with pytest.raises(InvalidValueError, match="batch_size must be positive"):
        tokens.batches(1, 0, seed=0)
    with pytest.raises(DataError, match="has no video of 100,000 codes: the longest has 42"):
        tokens.sequences(100_000)
    with pytest.raises(DataError, match=r"has videos of 3 grids, and clips .* square=true"):
        list(DataLoader(tokens.clips(2), batch_size=8))
    assert len(list(DataLoader(write_tokens(tmp_path / "one", {"a.mp4": (5, 2, 3)}).clips(2), batch_size=8))) == 1


def test_a_folder_and_the_package_say_what_they_hold(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    assert repr(tokens) == (
        f"Tokens('{tmp_path / 'tokens'}': 5 videos, 156 tokens of 300 codes, grids 2×3 (3), 4×3 (1), 3×2 (1))"
    )
    assert {"load", "tokens", "packing"} <= set(dir(vqgan))
