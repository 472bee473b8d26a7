"""Pictures from a folder tree, as clips of one frame."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vqgan.data.corpus import ClipDataset
from vqgan.data.folder import Folder
from vqgan.data.reading.files import FileKind
from vqgan.errors import UnusableError
from vqgan.video.crop import augment, check_size

SUFFIXES = ".avif .bmp .gif .jp2 .jpeg .jpg .png .ppm .tif .tiff .webp"
MAX_PIXELS = 2**26
# Floating-point pictures are from 0 to 1 or to 255, and beyond by a share of that, as scaling leaves it. Of the latter
# hardly anything would be seen if the brightest value were less than this: it may as well have another scale.
OVERSHOOT, DIMMEST = 0.25, 16
# What Pillow's readers raise over damaged files.
BROKEN = (
    OSError, RuntimeError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def scan_image(path: Path) -> tuple[Path, str | None]:
    """Read a picture's header.

    Raises:
        UnusableError: it is no picture, too small or too large.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableError(f"too large: {image.width}×{image.height}")
            check_size(image.width, image.height)
    except BROKEN as error:
        raise UnusableError(f"unreadable: {type(error).__name__}") from None
    return path, None


IMAGE_FILES = FileKind(
    name=f"images 1, Pillow {PIL.__version__}",
    suffixes=frozenset(SUFFIXES.split()),
    scan=scan_image,
    pack=lambda _: b"",  # that it can be read is all there is to know
    unpack=lambda path, _: path,
)


@dataclass(kw_only=True)
class Images(Folder[Path]):
    """A folder of pictures, in any format that Pillow reads; of animations the first frame.

    Pictures of floating-point numbers or 32-bit integers count from 0 to 1, 255 or 65535, whichever they keep to; those
    of another scale are left out.
    """

    kind = IMAGE_FILES

    def dataset(self, files: Sequence[Path]) -> ClipDataset:
        """All pictures."""
        return ImageFolder(files, self.resolution, self.crop == "random", self.flip)


class ImageFolder(ClipDataset):
    """Pictures, upright, the shorter side scaled to `resolution`, then cropped; transparency is dropped."""

    def __init__(self, files: Sequence[Path], resolution: int, random_crop: bool, flip: bool) -> None:
        self.files, self.resolution, self.random_crop, self.flip = files, resolution, random_crop, flip

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """The file of picture `index`."""
        return self.files[index]

    def read(self, index: int, rng: np.random.Generator | None) -> UInt8[Tensor, "time height width rgb"]:
        """Picture `index` as a clip of one frame; see `ClipDataset.read`."""
        try:
            with Image.open(self.files[index]) as stored:
                image = _to_rgb(ImageOps.exif_transpose(stored), stored.format == "TIFF")
        except BROKEN as error:
            raise UnusableError(f"decoding failed: {error}") from None
        scale = self.resolution / min(image.size)
        width, height = (max(self.resolution, round(side * scale)) for side in image.size)
        pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
        return torch.from_numpy(augment(pixels[None], self.resolution, rng, self.random_crop, self.flip))


def _to_rgb(image: Image.Image, is_tiff: bool) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and is_tiff):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    elif image.mode.startswith("I"):  # 16 bits, which `convert` would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # by way of its transparency, which else gives a warning
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_bytes(pixels: Float[np.ndarray, "h w"] | Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Numbers of which no file says what white is: it has to follow from them, or the picture is left out."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind != "f":
        if low >= 0 and high <= 65535:
            return (pixels if high <= 255 else pixels >> 8).astype(np.uint8)
    elif low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    elif low >= -OVERSHOOT * 255 and DIMMEST <= high <= (1 + OVERSHOOT) * 255:
        return pixels.clip(0, 255).astype(np.uint8)
    raise UnusableError(f"unknown scale: values from {low:g} to {high:g}")
