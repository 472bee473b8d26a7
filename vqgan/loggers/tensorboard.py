"""TensorBoard."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import yaml

from vqgan.errors import StoppedError, exit_code_of, missing_extra
from vqgan.loggers.best import Best
from vqgan.loggers.logger import Advice, Logger
from vqgan.runs.criterion import criterion_in
from vqgan.runs.metrics import HOURS
from vqgan.runs.provenance import not_neutral
from vqgan.runs.saved import typed_for
from vqgan.text import PROGRAM, without_secrets
from vqgan.video.pictures import CLIP_FPS, ROUNDS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# The page "Custom Scalars": which curves belong into one chart. The page "Scalars" has all of them, by panel.
CHARTS = {
    "train": {
        "autoencoder": ["train/total", "train/pixel", "train/perceptual", "train/quantization", "train/adversarial"],
        "players": ["train/adversarial", "train/discriminator"],
    },
    "validation": {
        "psnr": ["validation/psnr", "validation/psnr_mean_colour"],
        "ssim and lpips": ["validation/ssim", "validation/lpips"],
    },
    "codebook": {
        "usage": ["codebook/usage", "validation/usage"],
        "perplexity": ["codebook/perplexity", "validation/perplexity"],
    },
    "adversarial": {
        "logits": ["adversarial/logits_real", "adversarial/logits_fake"],
        "weight": ["adversarial/weight"],
    },
    "learning_rate": {"both": ["learning_rate/autoencoder", "learning_rate/discriminator"]},
    "speed": {
        "frames per second": ["speed/frames_per_second"],
        "data": ["speed/data_wait", "speed/reading"],
    },
}
COMPARED = ("validation/psnr", "validation/ssim", "validation/lpips")


class TensorBoard(Logger):
    """Scalars, pictures, clips, config and end of a run as TensorBoard events, in the run folder's `tensorboard/`.

    The axis "relative" is hours of training, without the time between a stop and its resume; "wall" is the start plus
    those hours. The page "HParams" compares runs by their best values.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], private: bool) -> None:  # noqa: ARG002  # local
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise missing_extra("logger=tensorboard", "tensorboard") from None
        self.run, self.folder, self.config = folder, folder / "tensorboard", config
        self.writer: SummaryWriter | None = None
        self.best = Best(criterion_in(config))
        self.began: float | None = None  # seconds since 1970
        self.step, self.hours = 0, 0.0

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Write one step's scalars and pictures, clips as animated pictures."""
        self.step, self.hours = step, scalars.get(HOURS, 0.0)
        writer = self._opened()
        for name, value in scalars.items():
            writer.add_scalar(name, value, step, self._now())
        for name, value in self.best.look(step, scalars).items():
            writer.add_scalar(_best(name), value, step, self._now())
        for name, file in files.items():
            self._add_picture(name, _animated(file) if file.suffix == ".mp4" else file.read_bytes())

    def advise(self, advice: Advice) -> None:
        """Write it as a text."""
        self._opened().add_text(f"advice/{advice.name}", advice.text, advice.step, self._now())

    def state_dict(self) -> dict[str, Any]:
        """When the run began, and its best values."""
        return {"began": self.began, "best": self.best.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.began = state.get("began")
        self.best.load_state_dict(state.get("best", {}))

    def close(self, error: BaseException | None = None) -> None:
        """Write how the run ended, and flush what is pending."""
        if self.writer is None:
            return
        end = "Finished." if error is None else without_secrets(str(error), typed_for(self.run)) or type(error).__name__
        self.writer.add_text("run/end", end, self.step, self._now())
        if not isinstance(error, StoppedError):  # that one goes on
            self._add(_session_end(exit_code_of(error) == 0))
        self.writer.close()

    def _opened(self) -> SummaryWriter:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            if self.began is None:
                self.began = time.time() - 3600 * self.hours
            # Rows from this step on were written after the checkpoint, by a process that has ended.
            self.writer = SummaryWriter(str(self.folder), purge_step=self.step)
            self._introduce(self.writer)
        return self.writer

    def _introduce(self, writer: SummaryWriter) -> None:
        """Which run it is, as texts; its values, as hyperparameters; and how to group its curves."""
        from torch.utils.tensorboard.summary import hparams

        typed = " ".join(typed_for(self.run))
        writer.add_text("run/command", _as_code(f"{PROGRAM} {typed}"), self.step, self._now())
        config = yaml.safe_dump(dict(self.config), sort_keys=False, allow_unicode=True)
        writer.add_text("run/config", _as_code(config), self.step, self._now())
        layout = {panel: {title: ["Multiline", names] for title, names in CHARTS[panel].items()} for panel in CHARTS}
        writer.add_custom_scalars(layout)
        values = {k: v if isinstance(v, int | float) else str(v) for k, v in not_neutral(self.config).items()}
        experiment, start, _ = hparams(
            values, dict.fromkeys(_best(name) for name in (*COMPARED, self.best.objective.scalar))
        )
        self._add(experiment)
        self._add(start)

    def _add_picture(self, name: str, content: bytes) -> None:
        """A picture as it is in its file: `add_image` would take it apart and encode it anew, and has no clips."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._add(Summary(value=[Summary.Value(tag=name, image=image)]))

    def _add(self, summary: Any) -> None:
        writer: Any = self._opened()
        writer.file_writer.add_summary(summary, self.step, self._now())

    def _now(self) -> float:
        return (self.began or 0.0) + 3600 * self.hours


def _session_end(succeeded: bool) -> Any:
    """What the page "HParams" takes as the end of a run; the package's own function for it needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    content = plugin_data_pb2.HParamsPluginData(session_end_info=end, version=metadata.PLUGIN_DATA_VERSION)
    data = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=SummaryMetadata(plugin_data=data))
    return Summary(value=[value])


def _best(name: str) -> str:
    return f"best/{name.rpartition('/')[2]}"


def _as_code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _animated(file: Path) -> bytes:
    """One round of a clip of `write_pictures` as an animated GIF, which TensorBoard shows and repeats."""
    first, *others = _one_round(file)
    content = io.BytesIO()
    milliseconds = 1000 // CLIP_FPS
    first.save(content, "gif", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return content.getvalue()


def _one_round(file: Path) -> Iterator[Any]:
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        for number, frame in enumerate(container.decode(stream)):
            if number == stream.frames // ROUNDS:
                return
            yield frame.to_image()
