"""Pictures as clips of one frame: every kind that Pillow reads comes out as upright rgb, or is written down as bad."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import LIMITS
from vqgan.data import BadFiles, Images
from vqgan.data.images import ImageFile, ImageFolder, scan_image
from vqgan.errors import UnusableError

RED, GREEN, BLUE, GREY = (220, 40, 30), (30, 200, 60), (40, 50, 230), (128, 128, 128)


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green above; blue, grey below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, GREY
    return Image.fromarray(pixels)


def read(path: Path, resolution: int = 32) -> np.ndarray:
    """The one frame of a picture."""
    (frame,) = ImageFolder([ImageFile(path, 0, 0)], resolution, False, False)[0].numpy()
    return frame


def corners(frame: np.ndarray) -> np.ndarray:
    """The colours of the four quarters: above left, above right, below left, below right."""
    height, width = frame.shape[:2]
    return np.stack([frame[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]).astype(
        int
    )


def assert_shows(frame: np.ndarray, *colours: tuple[int, int, int], tolerance: int = 6) -> None:
    np.testing.assert_allclose(corners(frame), colours, atol=tolerance)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tiff", "gif", "ppm", "avif", "jp2"])
def test_every_format_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    quarters().save(path)
    assert_shows(read(path), RED, GREEN, BLUE, GREY, tolerance=12)


# Each orientation, and what is then seen above left, above right, below left, below right.
ORIENTATIONS = {
    1: (RED, GREEN, BLUE, GREY),
    2: (GREEN, RED, GREY, BLUE),
    3: (GREY, BLUE, GREEN, RED),
    4: (BLUE, GREY, RED, GREEN),
    5: (RED, BLUE, GREEN, GREY),
    6: (BLUE, RED, GREY, GREEN),
    7: (GREY, GREEN, BLUE, RED),
    8: (GREEN, GREY, RED, BLUE),
}


@pytest.mark.parametrize(("orientation", "colours"), ORIENTATIONS.items())
def test_pictures_are_upright(orientation: int, colours: tuple[tuple[int, int, int], ...], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(tmp_path / "turned.png", exif=exif)
    assert_shows(read(tmp_path / "turned.png"), *colours)


def with_alpha() -> Image.Image:
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 100))
    return image


MODES: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "grey": (lambda: quarters().convert("L"), "png"),
    "grey with alpha": (lambda: quarters().convert("LA"), "png"),
    "black and white": (lambda: quarters().convert("1"), "png"),
    "palette": (lambda: quarters().quantize(8), "png"),
    "alpha": (with_alpha, "png"),
    "CMYK": (lambda: quarters().convert("CMYK"), "jpg"),
    "CMYK tiff": (lambda: quarters().convert("CMYK"), "tiff"),
    "16 bits": (lambda: Image.fromarray(np.asarray(quarters().convert("L")).astype(np.uint16) * 257), "png"),
    "16 bits tiff": (lambda: Image.fromarray(np.asarray(quarters().convert("L")).astype(np.uint16) * 257), "tiff"),
    "32 bits tiff": (lambda: in_numbers(1, np.int32), "tiff"),
    "32 bits tiff, 16 used": (lambda: in_numbers(257, np.int32), "tiff"),
    "float tiff": (lambda: in_numbers(1 / 255, np.float32), "tiff"),
    "float tiff up to 255": (lambda: in_numbers(1, np.float32), "tiff"),
}


def in_numbers(factor: float, kind: type[np.generic]) -> Image.Image:
    return Image.fromarray((np.asarray(quarters().convert("L")).astype(np.float64) * factor).astype(kind))


@pytest.mark.parametrize(
    ("factor", "kind"),
    [(20, np.float32), (-1 / 255, np.float32), (0.02, np.float32), (2**16, np.int32), (-1, np.int32)],
)
def test_numbers_of_which_white_is_unknown_are_left_out(factor: float, kind: type[np.generic], tmp_path: Path) -> None:
    in_numbers(factor, kind).save(tmp_path / "picture.tiff")
    with pytest.raises(UnusableError, match="unknown scale: values from"):
        read(tmp_path / "picture.tiff")
    Image.fromarray(np.full((48, 64), np.nan, np.float32)).save(tmp_path / "nothing.tiff")
    with pytest.raises(UnusableError, match="unknown scale: values from nan"):
        read(tmp_path / "nothing.tiff")


@pytest.mark.parametrize(("make", "suffix"), MODES.values(), ids=MODES.keys())
def test_every_mode_becomes_rgb(make: Callable[[], Image.Image], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    image = make()
    image.save(path)
    frame = read(path)
    assert frame.shape == (32, 32, 3)
    if image.mode in {"RGBA", "P", "CMYK"}:
        assert_shows(frame, RED, GREEN, BLUE, GREY, tolerance=16)
    elif image.mode != "1":
        grey = [np.asarray(Image.new("RGB", (1, 1), c).convert("L")).repeat(3) for c in (RED, GREEN, BLUE, GREY)]
        assert_shows(frame, *map(tuple, grey), tolerance=3)


def test_a_transparent_palette_gives_no_warning_and_its_colours(tmp_path: Path) -> None:
    image = quarters().quantize(8)
    image.save(tmp_path / "picture.png", transparency=bytes(range(8)))
    assert_shows(read(tmp_path / "picture.png"), RED, GREEN, BLUE, GREY)


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    others = [Image.new("RGB", (64, 48), "black")]
    quarters().save(tmp_path / "moving.gif", save_all=True, append_images=others)
    assert_shows(read(tmp_path / "moving.gif"), RED, GREEN, BLUE, GREY, tolerance=12)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (33, 47), (16, 256), (500, 40), (16, 16)])
@pytest.mark.parametrize("resolution", [16, 31, 96])
def test_any_size_becomes_a_square(width: int, height: int, resolution: int, tmp_path: Path) -> None:
    quarters(width, height).save(tmp_path / "picture.png")
    file, _ = scan_image(tmp_path / "picture.png")
    assert (file.width, file.height) == (width, height)
    clip = ImageFolder([file], resolution, True, True).read(0, np.random.default_rng(0))
    assert clip.shape == (1, resolution, resolution, 3)
    assert clip.dtype == torch.uint8


def huge_png() -> bytes:
    """A header that speaks of a picture of 30000 × 30000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def folder_of(root: Path, **changes: Any) -> Images:
    settings: dict[str, Any] = {
        "root": str(root), "val_root": None, "val_fraction": 0.1, "validation_clips": 4, "resolution": 32,
        "crop": "center", "flip": False, "batch_size": 2, "workers": 0, "max_bad_fraction": 0.0, "max_bad_files": 100,
        "limits": LIMITS,
    }  # fmt: skip
    return Images(**{**settings, **changes})


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "empty file"),
    "text": (lambda path: path.write_text("not a picture"), "unreadable"),
    "random bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "unreadable"),
    "header only": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "unreadable"),
    "huge": (lambda path: path.write_bytes(huge_png()), "too large|unreadable"),
    "tiny": (lambda path: quarters(15, 64).save(path), "too small"),
    "a line": (lambda path: quarters(20, 400).save(path), "too long a side"),
}


@pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_picture_is_reported_and_left_out(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(2):
        quarters().save(root / f"good{number}.png")
    make(root / "bad.png")
    train, validation = folder_of(root).datasets(BadFiles(tmp_path / "bad_files.jsonl", 0.0, 100))
    assert {train.path(0).name, validation.path(0).name} == {"good0.png", "good1.png"}
    assert len(train) == len(validation) == 1
    (row,) = map(json.loads, (tmp_path / "bad_files.jsonl").read_text().splitlines())
    assert row["path"] == str(root / "bad.png")
    assert any(row["reason"].startswith(start) for start in reason.split("|")), row["reason"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "webp", "bmp"])
def test_a_truncated_picture_is_unusable(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(48, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnusableError, match="decoding failed"):
        read(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damage that it reads past
@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "webp", "bmp", "avif", "jp2", "ppm"])
def test_no_damage_is_a_crash(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    quarters().save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(len(content), size=4):
            damaged[position] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            scan_image(path)
            assert read(path).shape == (32, 32, 3)
        except UnusableError:
            pass
