"""Batches are functions of the seed and their number alone, and what cannot be read is replaced by rule."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import LIMITS
from tests.support.numbered import CLIPS, Numbered
from tests.unit.video.test_video_file import Recording
from vqgan.data import BadFiles, Loader
from vqgan.data.loader import read_evenly
from vqgan.data.videos import VideoFolder
from vqgan.errors import DataError
from vqgan.runtime import collectives
from vqgan.video.crop import augment
from vqgan.video.file import scan_video


@pytest.fixture
def ledger(tmp_path: Path) -> BadFiles:
    """A ledger that allows everything."""
    bad_files = BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0)
    bad_files.total = CLIPS
    return bad_files


def batches(loader: Loader, count: int, first: int = 0) -> list[Tensor]:
    iterator = loader.batches(first)
    assert isinstance(iterator, Iterator)
    with closing(iterator):
        return list(itertools.islice(iterator, count))


def assert_same(some: list[Tensor], others: list[Tensor]) -> None:
    assert len(some) == len(others)
    assert all(torch.equal(a, b) for a, b in zip(some, others))


def numbers(clips: list[Tensor]) -> list[int]:
    """The clips' numbers in order."""
    return torch.cat(clips)[:, 0, 0, 0, 0].tolist()


@pytest.fixture(scope="session")
def video_clips(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    """The clips of three videos, with random crops and flips."""
    files = [Recording(b_frames=2).write_numbers(tmp_path_factory.mktemp("clips"), 20) for _ in range(3)]
    return VideoFolder([scan_video(file)[0] for file in files], 32, 4, 1, None, True, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_videos_give_the_same_batches_with_any_number_of_workers(
    workers: int, video_clips: VideoFolder, ledger: BadFiles
) -> None:
    in_this_process = batches(Loader(video_clips, 4, 0, 7, ledger, LIMITS), 6)
    assert in_this_process[0].shape == (4, 4, 32, 32, 3)
    assert_same(batches(Loader(video_clips, 4, workers, 7, ledger, LIMITS), 6), in_this_process)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_does_not_depend_on_where_iteration_starts(workers: int, ledger: BadFiles) -> None:
    loader = Loader(Numbered(), 4, workers, 7, ledger, LIMITS)
    assert_same(batches(loader, 5, first=6), batches(Loader(Numbered(), 4, 0, 7, ledger, LIMITS), 11)[6:])


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
def test_every_clip_comes_once_in_each_epoch(batch_size: int, ledger: BadFiles) -> None:
    epochs = 4
    loader = Loader(Numbered(), batch_size, 0, 7, ledger, LIMITS)
    sequence = numbers(batches(loader, -(-CLIPS * epochs // batch_size)))
    orders = [sequence[epoch * CLIPS : (epoch + 1) * CLIPS] for epoch in range(epochs)]
    assert all(sorted(order) == list(range(CLIPS)) for order in orders)
    assert len({tuple(order) for order in orders}) == epochs


def test_another_seed_is_another_order_and_other_choices(ledger: BadFiles) -> None:
    of_seeds = [torch.cat(batches(Loader(Numbered(), 11, 0, seed, ledger, LIMITS), 2)) for seed in range(4)]
    orders = {tuple(clips[:, 0, 0, 0, 0].tolist()) for clips in of_seeds}
    choices = {tuple(clips[:, 0, 0, 1, 0].tolist()) for clips in of_seeds}
    assert len(orders) == len(choices) == 4


def test_a_clip_gets_other_choices_in_each_epoch(ledger: BadFiles) -> None:
    clips = torch.cat(batches(Loader(Numbered(clips=1), 8, 0, 7, ledger, LIMITS), 1))
    assert len(set(clips[:, 0, 0, 1, 0].tolist())) > 4


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_unreadable_clip_is_replaced_by_rule_and_reported_once(workers: int, ledger: BadFiles) -> None:
    unusable = frozenset({2, 3, 7})
    read = batches(Loader(Numbered(unusable), 4, workers, 7, ledger, LIMITS), 11)
    assert not unusable & set(numbers(read))
    rows = [json.loads(line) for line in ledger.file.read_text().splitlines()]
    assert Counter(row["path"] for row in rows) == {"clip2": 1, "clip3": 1, "clip7": 1}
    assert {row["reason"] for row in rows} == {"damaged"}
    again = BadFiles(ledger.file.with_name("again.jsonl"), 1.0, 0)
    assert_same(read, batches(Loader(Numbered(unusable), 4, 0, 7, again, LIMITS), 11))
    whole = numbers(batches(Loader(Numbered(), 4, 0, 7, ledger, LIMITS), 11))
    replaced = [position for position, number in enumerate(whole) if number in unusable]
    kept = [n for position, n in enumerate(numbers(read)) if position not in replaced]
    assert kept == [n for position, n in enumerate(whole) if position not in replaced]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_clips_end_the_run(workers: int, tmp_path: Path) -> None:
    bad_files = BadFiles(tmp_path / "bad_files.jsonl", 0.0, 1)
    bad_files.total = CLIPS
    with pytest.raises(DataError, match=f"2 of {CLIPS} files cannot be used"):
        batches(Loader(Numbered(frozenset({1, 2, 3})), 4, workers, 7, bad_files, LIMITS), 11)


@pytest.mark.parametrize("workers", [0, 2])
def test_where_nothing_can_be_read_the_error_is_one_paragraph(workers: int, ledger: BadFiles) -> None:
    with pytest.raises(DataError, match=r"clips in a row cannot be read; the last was of clip\d+ \(damaged\)") as error:
        batches(Loader(Numbered(frozenset(range(CLIPS))), 2, workers, 7, ledger, LIMITS), 1)
    assert "Traceback" not in str(error.value)
    assert "\n" not in str(error.value)


def test_the_sequence_can_be_sent_to_a_process_that_shares_nothing(video_clips: VideoFolder, ledger: BadFiles) -> None:
    sequence = Loader(video_clips, 4, 2, 7, ledger, LIMITS).sequence
    assert torch.equal(pickle.loads(pickle.dumps(sequence))[17].clip, sequence[17].clip)


def test_a_video_that_has_gone_is_replaced_and_reported(tmp_path: Path) -> None:
    files = [Recording().write_numbers(folder, 8) for folder in (tmp_path / "a", tmp_path / "b") if not folder.mkdir()]
    dataset = VideoFolder([scan_video(file)[0] for file in files], 32, 4, 1, None, True, True)
    files[0].unlink()
    bad_files = BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0)
    assert batches(Loader(dataset, 4, 0, 7, bad_files, LIMITS), 2)[1].shape == (4, 4, 32, 32, 3)
    assert bad_files.reasons == {str(files[0]): "decoding failed: No such file or directory"}


def test_reading_leaks_no_file_descriptor(video_clips: VideoFolder, ledger: BadFiles) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    sequence = Loader(video_clips, 4, 0, 7, ledger, LIMITS).sequence
    sequence[0]
    before = opened()
    for number in range(300):
        sequence[number]
        assert opened() <= before


@pytest.mark.parametrize(("most", "expected"), [(1, [0]), (2, [0, 10]), (3, [0, 5, 10]), (50, list(range(CLIPS)))])
def test_validation_clips_are_evenly_spread(most: int, expected: list[int], ledger: BadFiles) -> None:
    validation = read_evenly(Numbered(), most, ledger, 0, LIMITS)
    assert numbers([validation.clips]) == expected
    assert validation.sources == [f"clip{n}" for n in expected]
    assert validation.clips[:, 0, 0, 1].max() == 0


def test_unreadable_validation_clips_are_left_out_and_reported(ledger: BadFiles) -> None:
    validation = read_evenly(Numbered(frozenset({0, 5})), 3, ledger, 0, LIMITS)
    assert numbers([validation.clips]) == [10]
    assert validation.sources == ["clip10"]
    assert set(ledger.reasons) == {"clip0", "clip5"}
    with pytest.raises(DataError, match=r"None of the 2 validation clips can be read \(3 damaged\)"):
        read_evenly(Numbered(frozenset(range(CLIPS))), 2, ledger, 0, LIMITS)


# Crops and flips


def ramps(height: int, width: int, frames: int = 3) -> np.ndarray:
    """Frames that tell each pixel's row (red), column (green), and the frame's number (blue)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.stack([rows, columns, np.full_like(rows, n)], axis=2) for n in range(frames)]).astype(np.uint8)


def crop_of(clip: np.ndarray) -> tuple[int, int, bool]:
    """Where a clip of `ramps` was cropped, and whether it is mirrored; the same for all its frames."""
    found = {(int(f[0, 0, 0]), int(f[..., 1].min()), bool(f[0, 0, 1] > f[0, -1, 1])) for f in clip}
    assert len(found) == 1
    return found.pop()


def test_all_frames_of_a_clip_share_one_crop_and_flip() -> None:
    crops = {crop_of(augment(ramps(24, 20), 16, np.random.default_rng(seed), True, True)) for seed in range(400)}
    assert {top for top, _, _ in crops} == set(range(9))
    assert {left for _, left, _ in crops} == set(range(5))
    assert {mirrored for _, _, mirrored in crops} == {False, True}


def test_half_of_the_clips_are_mirrored() -> None:
    mirrored = [crop_of(augment(ramps(16, 16), 16, np.random.default_rng(s), True, True))[2] for s in range(400)]
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize(
    ("seed", "random_crop", "flip", "places"),
    [(None, True, True, 1), (0, False, False, 1), (0, True, False, 45), (0, False, True, 2)],
)
def test_validation_takes_the_centre_and_settings_are_obeyed(
    seed: int | None, random_crop: bool, flip: bool, places: int
) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    crops = {crop_of(augment(ramps(24, 20), 16, rng, random_crop, flip)) for _ in range(1000)}
    assert len(crops) == places
    if not random_crop or rng is None:
        assert {(top, left) for top, left, _ in crops} == {(4, 2)}


def test_a_training_clip_of_a_video_is_cropped_and_mirrored_and_a_validation_clip_is_not(
    tmp_path: Path,
) -> None:
    path = Recording("ffv1", "mkv", "bgr0").write(tmp_path / "ramps.mkv", list(ramps(48, 64, 4)))
    clips = VideoFolder([scan_video(path)[0]], 48, 4, 1, None, True, True)
    trained = {crop_of(clips.read(0, np.random.default_rng(seed)).numpy()) for seed in range(60)}
    assert len({left for _, left, _ in trained}) > 8
    assert {mirrored for _, _, mirrored in trained} == {False, True}
    assert {crop_of(clips[0].numpy()) for _ in range(5)} == {(0, 8, False)}


def test_all_processes_validate_on_the_same_clips(ledger: BadFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only another process cannot read is left out here as well."""
    monkeypatch.setattr(collectives, "gather", lambda read: [read, [index for index in read if index != 3]])
    still = read_evenly(Numbered(frozenset({5})), CLIPS, ledger, 0, LIMITS)
    expected = [index for index in range(CLIPS) if index not in (3, 5)]
    assert still.sources == [f"clip{index}" for index in expected]
    assert still.clips[:, 0, 0, 0, 0].tolist() == expected
