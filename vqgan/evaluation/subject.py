"""What `vqgan evaluate` works on: a tokenizer, and the clips that it is measured with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vqgan.config.build import conf_dir, values_of
from vqgan.data import BadFiles, ClipDataset, Corpus
from vqgan.data.images import IMAGE_FILES
from vqgan.data.loader import none_readable, spread, stream_evenly
from vqgan.data.reading.files import find_files
from vqgan.data.videos import VIDEO_FILES
from vqgan.errors import ConfigError
from vqgan.evaluation.evaluator import Clip
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.saved import load_config
from vqgan.tokenizer import folder as folder_of_tokenizer
from vqgan.tokenizer.tokenizer import Tokenizer, rebuild

# What classes of `conf/data` read, by its file there. The one that generates videos reads nothing that was there
# before: it would write its own into the user's folder.
READS = {
    "vqgan.data.Videos": "videos",
    "vqgan.data.Images": "images",
    "vqgan.data.Shards": "shards",
    "vqgan.data.SyntheticVideos": "",
}


@dataclass(frozen=True)
class Subject:
    """A tokenizer to measure.

    Args:
        source: what the user called it.
        name: how it is known elsewhere: the last two folders of its path, or its hub id.
        network: rebuilt.
        folder: where its evaluation is kept; None for a hub id.
        step: of its checkpoint; None for what is no run.
        data: the values of the run's own section `data`; None for what is no run.
        trained_on: the fingerprint of the data that it was trained on; None if it is not known.
    """

    source: str
    name: str
    network: Tokenizer
    folder: Path | None
    step: int | None
    data: dict[str, Any] | None
    trained_on: str | None


def open_subject(source: str) -> Subject:
    """The tokenizer of a run (its best checkpoint), an exported folder, or a hub id.

    Raises:
        ConfigError: there is no such thing.
        CheckpointError: it is damaged, or would need to run code.
    """
    folder = Path(source)
    step, data, trained_on = None, None, None
    if (folder / "checkpoints").is_dir():
        description = folder_of_tokenizer.describe(folder)
        step, state = Checkpoints(folder / "checkpoints", keep=1).read_best()
        tensors = folder_of_tokenizer.tensors_in(state, "autoencoder", folder)
        config = load_config(folder)
        assert config is not None  # `describe` has read it
        data = values_of(config["data"], "data") if isinstance(config.get("data"), DictConfig) else None
        trained_on = state.get("provenance", {}).get("data")
    else:
        description, tensors = folder_of_tokenizer.read(source)
    network = rebuild(description, tensors)
    network.load_state_dict(tensors)
    here = folder if folder.is_dir() else None
    name = source if here is None else "/".join(folder.resolve().parts[-2:])
    return Subject(source, name, network, here, step, data, trained_on)


def data_section(subject: Subject, root: str | None) -> dict[str, Any]:
    """The values of `data`: the run's own; those of `conf/data` for what is no run, or read files of another kind.

    Args:
        subject: whose.
        root: the folder to take instead of the run's.

    Raises:
        ConfigError: it is no run, and there is no folder.
        DataError: the folder holds nothing.
    """
    values = subject.data
    if root is None:
        if values is None:
            raise ConfigError(f"{subject.source} is no run, so it has no data of its own; name a folder: --data DIR.")
        return values
    kind = _kind_of_files(root)
    target = values.get("_target_") if values is not None else None
    reads = READS.get(str(target), "" if kind == "shards" else kind)  # a class that we do not know reads its own files
    if values is None or reads != kind:
        chosen = OmegaConf.load(conf_dir() / "data" / f"{kind}.yaml")
        assert isinstance(chosen, DictConfig)
        chosen.update({"root": root, "resolution": subject.network.resolution})
        usual = values_of(chosen, "data")
        kept = usual.keys() - {"_target_", *(["limits"] if kind == "shards" else [])}  # which suit the kind of reading
        values = usual | {key: value for key, value in (values or {}).items() if key in kept}
    return values | {"root": root, "val_root": None}


def _kind_of_files(root: str) -> str:
    """`shards`, `videos` or `images`: what most files are, with a warning about the rest; a GIF could be either."""
    folder = Path(root).expanduser()
    if "://" in root or any(folder.glob("shard-*.tar")):
        return "shards"
    videos, pictures = VIDEO_FILES.suffixes, IMAGE_FILES.suffixes
    suffixes = [file.suffix.lower() for file in find_files(folder, "--data", videos | pictures)]
    counts = {
        "videos": sum(suffix not in pictures for suffix in suffixes),
        "images": sum(suffix not in videos for suffix in suffixes),
    }
    kind, other = sorted(counts, key=lambda kind: -counts[kind])
    if counts[other]:
        warnings.warn(
            f"--data={root} holds {counts['videos']} videos and {counts['images']} images. The {kind} are measured, "
            f"the {other} are left out.",
            stacklevel=2,
        )
    return kind


def read_clips(
    dataset: ClipDataset, most: int | None, folder: Corpus, bad_files: BadFiles
) -> Generator[tuple[Path, Clip], None, None]:
    """At most so many clips, evenly spread, each with its video; those that cannot be read are written down.

    Raises:
        DataError: none can be read, or too many files cannot.
    """
    count, found = len(spread(len(dataset), most)), 0
    stream = stream_evenly(dataset, most, bad_files, folder.workers, folder.limits)
    with contextlib.closing(stream), tqdm(total=count, unit="clip", leave=False, disable=None) as progress:
        for index, clip in stream:
            found += 1
            progress.update(1)
            yield dataset.video(index), clip
    if not found:
        raise none_readable(count, bad_files)
