"""gFVD: how far continuations are from the videos themselves, as rFVD tells how far reconstructions are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from vqgan.errors import ConfigError, DataError, UnusableError
from vqgan.evaluation import networks
from vqgan.evaluation.figures import Metric, distance
from vqgan.evaluation.frechet import Moments
from vqgan.files.weights import NotAvailableError
from vqgan.runtime.device import running_in
from vqgan.tokens.folder import Tokens
from vqgan.video.file import scan_video
from vqgan.video.times import Reading

Clip = UInt8[np.ndarray, "time height width rgb"]


class Gfvd:
    """The Fréchet distances of I3D's features, of which only sums are kept.

    `gfvd` is between the videos that were encoded and the continuations, prompts included: what tokenizer and prior
    come to together. `gfvd_decoded` is between the same videos as the tokenizer decodes them and the continuations:
    the prior's part of it. Network, features and distance are rFVD's.

    Args:
        file: of the network; None for torch's cache.
        download: fetch it if it is not here.
        frames: of each clip.
        device: of the network.

    Raises:
        ConfigError: the network cannot be had, or takes no clips as short.
    """

    def __init__(self, file: str | None, download: bool, frames: int, device: torch.device) -> None:
        if frames < networks.I3D.least_frames:
            raise ConfigError(
                f"gfvd=true needs clips of at least {networks.I3D.least_frames} frames, and these have {frames}: give "
                "more times."
            )
        try:
            published = networks.I3D_TORCHSCRIPT
            self.network = networks.I3D(networks.find_weights(published, file, download)).to(device)
        except NotAvailableError as error:
            raise ConfigError(f"gfvd=true, and its network cannot be had: {error}.") from None
        self.checksum, self.frames, self.device = published.sha256, frames, device
        self.originals, self.decoded, self.made = (Moments(networks.I3D.dim) for _ in range(3))

    def add(self, original: Clip, decoded: Clip, made: Clip) -> None:
        """Take a video, what the tokenizer makes of it, and a continuation of it; one that is shorter is left out."""
        if len(made) != self.frames:
            return
        with torch.no_grad(), running_in("fp32", self.device):
            for moments, clip in zip((self.originals, self.decoded, self.made), (original, decoded, made)):
                moments.add(self.network(torch.from_numpy(np.ascontiguousarray(clip))[None].to(self.device)))

    def metrics(self) -> dict[str, Metric]:
        """Both; see the class."""
        what = f"of {self.made.count} clips of {self.frames} frames"
        pairs = {"gfvd": self.originals, "gfvd_decoded": self.decoded}
        found = {name: distance(moments, self.made, what) for name, moments in pairs.items()}
        return {name: Metric(value, None, None, "", reason) for name, (value, reason) in found.items()}


def original(tokens: Tokens, path: str, frames: int, root: Path | None) -> Clip:
    """The first frames of a video as the tokenizer got them.

    Args:
        tokens: of it.
        path: of it there.
        frames: how many.
        root: the folder of videos; None for where it was.

    Raises:
        ConfigError: it is not there.
        DataError: it cannot be read.
    """
    manifest: dict[str, Any] = dict(tokens.manifest)
    base = root or Path(str(manifest.get("videos", "")))
    if not (base / path).is_file():
        raise ConfigError(
            f"gfvd=true compares with the videos that were encoded, and {base / path} is not there. If they were "
            "moved, name their folder: --videos VIDEOS."
        )
    try:
        reading = Reading(**manifest["reading"])
        with closing(reading.open(scan_video(base / path)[0])) as stream:
            found = reading.crop(stream.read(0, frames))
    except (UnusableError, TypeError, KeyError) as error:
        raise DataError(f"{base / path} cannot be read as it was encoded: {error}.") from None
    return found
