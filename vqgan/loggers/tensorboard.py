"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vqgan.advice import Advice
from vqgan.errors import ConfigError
from vqgan.loggers.logger import Logger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Logger):
    """Scalars and pictures as TensorBoard events, in the run folder's `tensorboard/`.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], private: bool) -> None:  # noqa: ARG002  # local
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise ConfigError("logger=tensorboard needs the extra: pip install tensorboard.") from None
        self.folder = folder / "tensorboard"
        self.writer: SummaryWriter | None = None

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Write one step's scalars and pictures; clips stay in the run folder, since showing them needs moviepy."""
        writer = self._opened(step)
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        for name, file in files.items():
            if file.suffix == ".png":
                writer.add_image(name, np.asarray(Image.open(file)), step, dataformats="HWC")

    def advise(self, advice: Advice) -> None:
        """Write it as a text."""
        self._opened(advice.step).add_text(f"advice/{advice.name}", advice.text, advice.step)

    def close(self, hurried: bool = False) -> None:  # noqa: ARG002  # it is quick
        """Flush what is pending."""
        if self.writer is not None:
            self.writer.close()

    def _opened(self, step: int) -> SummaryWriter:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=step)
        return self.writer
