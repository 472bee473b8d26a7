"""Others' functions as subjects: by a closed formula where they behave, by one sentence where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.evaluation.test_evaluator import evaluator
from vqgan.errors import ConfigError
from vqgan.evaluation.function import FromFunction, MeanColour

SIDE, FRAMES = 16, 3
FILE = """
import torch

def brighter(clips):                       # by five of 255 levels
    assert clips.shape[1:] == (3, 3, 16, 16) and clips.dtype == torch.float32
    return clips + 10 / 255

def counting(clips):
    return clips, torch.arange(len(clips)) + 1.0

def altogether(clips):
    return clips.mul_(-1), 60              # writes into what it got

def louder(clips):
    return clips * 3

def shape(clips):
    return clips[:, :1]

def bytes(clips):
    return clips.to(torch.uint8)

def nothing(clips):
    return None

def not_finite(clips):
    return clips / 0

def bits(clips):
    return clips, [1.0] * 7

def words(clips):
    return clips, "many"

def negative(clips):
    return clips, -1

def broken(clips):
    raise RuntimeError("no weights here\\nsecond line")

class Inside:
    @staticmethod
    def method(clips):
        return clips
"""


@pytest.fixture
def address(tmp_path: Path) -> Callable[[str], str]:
    (tmp_path / "theirs.py").write_text(FILE)
    return lambda name: f"{tmp_path / 'theirs.py'}:{name}"


def clips(count: int = 4, per_video: int = 2) -> list[tuple[Path, torch.Tensor]]:
    """Clips of noise that stays clear of black and white."""
    rng = np.random.default_rng(3)
    levels = rng.integers(40, 200, (count, FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
    return [(Path(f"{n // per_video}.mp4"), torch.from_numpy(levels[n])) for n in range(count)]


def values(function: Any, **changed: Any) -> dict[str, float | None]:
    measured = evaluator(**changed).measure(function, clips())
    return {name: metric.value for name, metric in measured.metrics.items()}


def test_a_shift_has_the_psnr_of_the_formula(address: Callable[[str], str]) -> None:
    found = values(FromFunction(address("brighter")))
    assert found["psnr"] == pytest.approx(20 * math.log10(255 / 5), abs=1e-5)
    assert found["flicker"] == 0
    for name in ("usage", "perplexity", "bits_per_token", "bits_per_pixel", "bits_per_pixel_fixed"):
        assert found[name] is None, name


def test_bits_are_a_number_for_each_clip_or_one_for_all(address: Callable[[str], str]) -> None:
    pixels = FRAMES * SIDE**2
    each = values(FromFunction(address("counting")), batch_frames=2 * FRAMES)  # 1 and 2 bits, twice
    assert each["bits_per_pixel"] == pytest.approx(6 / (4 * pixels))
    together = values(FromFunction(address("altogether")), batch_frames=2 * FRAMES)  # 60 bits, twice
    assert together["bits_per_pixel"] == pytest.approx(120 / (4 * pixels))


def test_it_cannot_write_into_the_originals(address: Callable[[str], str]) -> None:
    """Else its reconstruction would be what it is compared with."""
    x = np.stack([clip.numpy() for _, clip in clips()]).astype(float)
    errors = ((2 * x - 255) ** 2).mean((2, 3, 4))
    expected = (10 * np.log10(255**2 / errors)).mean()
    assert values(FromFunction(address("altogether")))["psnr"] == pytest.approx(expected, abs=1e-3)


def test_what_lies_beyond_is_clamped_and_told(address: Callable[[str], str]) -> None:
    quiet, loud = FromFunction(address("brighter")), FromFunction(address("louder"))
    for function in (quiet, loud):
        values(function)
    assert quiet.remarks == []
    assert loud.remarks == ["some of its values lie outside [-1, 1] and are clamped"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shape", r"gives \(4, 1, 3, 16, 16\) for \(4, 3, 3, 16, 16\)"),
        ("bytes", "gives torch.uint8, not a tensor of floats"),
        ("nothing", "gives NoneType, not a tensor of floats"),
        ("not_finite", "gives values that are not finite"),
        ("bits", "gives bits that are not a number for each of 4 clips"),
        ("words", "gives bits that are not a number"),
        ("negative", "gives bits that are not a number"),
        ("broken", "ended with RuntimeError: no weights here\\.$"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(name: str, message: str, address: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        values(FromFunction(address(name)), batch_frames=100)
    assert str(error.value).startswith(f"python:theirs.py:{name} ")


def test_a_name_may_lie_in_a_class_or_be_of_an_installed_module(address: Callable[[str], str]) -> None:
    assert values(FromFunction(address("Inside.method")))["psnr"] == 100
    assert values(FromFunction("torch.nn.functional:hardtanh"))["psnr"] == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("theirs", "names no function"),
        ("nowhere.py:name", "there is no such file"),
        ("no_such_module_at_all:name", "cannot be imported: there is no module no_such_module_at_all"),
        ("torch:no_such_name", "torch has no function no_such_name"),
    ],
)
def test_an_address_that_leads_nowhere(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FromFunction(text)


def test_a_file_that_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="cannot be imported: ZeroDivisionError: division by zero"):
        FromFunction(f"{tmp_path / 'broken.py'}:name")


def test_the_reason_is_told_where_the_first_line_only_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('Failed to import it (look up):\\n\\nno such operator')")
    with pytest.raises(ConfigError, match=r"RuntimeError: Failed to import it \(look up\): no such operator\.$"):
        FromFunction(f"{tmp_path / 'broken.py'}:name")


def test_the_mean_colour_is_what_every_tokenizer_must_beat() -> None:
    found = values(MeanColour())
    assert found["psnr"] == pytest.approx(found["psnr_mean_colour"], abs=0.01)  # but for the rounding of the colour
    assert found["bits_per_pixel"] == pytest.approx(24 / SIDE**2)
