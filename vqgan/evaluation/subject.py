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

from vqgan.config.build import conf_dir, find_class, values_of
from vqgan.data import BadFiles, ClipDataset, Corpus
from vqgan.data.loader import none_readable, spread, stream_evenly
from vqgan.data.reading.files import find_files
from vqgan.errors import ConfigError
from vqgan.evaluation.evaluator import Clip
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.saved import load_config
from vqgan.tokenizer import folder as folder_of_tokenizer
from vqgan.tokenizer.tokenizer import Tokenizer, rebuild

SHARD = ".tar"


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


def open_subject(source: str, parts: Path | None = None) -> Subject:
    """The tokenizer of a run (its best checkpoint), an exported folder, or a hub id; for `parts` see `load`.

    Raises:
        ConfigError: there is no such thing.
        CheckpointError: it is damaged, or would need to run code.
    """
    folder = Path(source)
    step, data, trained_on = None, None, None
    if (folder / "checkpoints").is_dir():
        description = folder_of_tokenizer.describe(folder)
        step, state = Checkpoints(folder / "checkpoints", keep=1).read_best()
        tensors = folder_of_tokenizer.autoencoder_in(state, folder)
        config = load_config(folder)
        assert config is not None  # `describe` has read it
        data = values_of(config["data"], "data") if isinstance(config.get("data"), DictConfig) else None
        trained_on = state.get("provenance", {}).get("data")
    else:
        description, tensors = folder_of_tokenizer.read(source)
    network = rebuild(description, tensors, parts)
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
    chosen, section = _choice_for(root)
    own = find_class(values["_target_"], "data") if values is not None and "_target_" in values else None
    # A class of the user's own that reads such files is taken at its word.
    fits = own is not None and (
        own is chosen or (own.__module__.partition(".")[0] != "vqgan" and bool(_reads(own) & _reads(chosen)))
    )
    if values is None or not fits:
        section.update({"root": root, "resolution": subject.network.resolution})
        usual = values_of(section, "data")
        # The limits suit the kind of reading.
        kept = usual.keys() - {"_target_", *(["limits"] if SHARD in _reads(chosen) else [])}
        values = usual | {key: value for key, value in (values or {}).items() if key in kept}
    return values | {"root": root, "val_root": None}


def _choice_for(root: str) -> tuple[type, DictConfig]:
    """The class and the values of the `conf/data` that reads most files of a folder; the rest is warned of."""
    choices: dict[str, tuple[type, DictConfig]] = {}
    for file in sorted((conf_dir() / "data").glob("*.yaml")):
        section = OmegaConf.load(file)
        assert isinstance(section, DictConfig)
        choices[file.stem] = find_class(section.get("_target_"), f"data={file.stem}"), section
    folder = Path(root).expanduser()
    if "://" in root or any(folder.glob(f"shard-*{SHARD}")):
        return next(choice for choice in choices.values() if SHARD in _reads(choice[0]))
    readers = {name: _reads(cls) for name, (cls, _) in choices.items() if _reads(cls) - {SHARD}}
    suffixes = [file.suffix.lower() for file in find_files(folder, "--data", frozenset().union(*readers.values()))]
    counts = {name: sum(suffix in reads for suffix in suffixes) for name, reads in readers.items()}
    best, *others = sorted(counts, key=lambda name: -counts[name])
    left_out = {name: counts[name] for name in others if any(s in readers[name] - readers[best] for s in suffixes)}
    if left_out:
        warnings.warn(
            f"--data={root} holds {' and '.join(f'{counts[name]} {name}' for name in (best, *left_out))}. The "
            f"{best} are measured, the {' and '.join(left_out)} are left out.",
            stacklevel=2,
        )
    return choices[best]


def _reads(cls: type) -> frozenset[str]:
    return cls.reads() if issubclass(cls, Corpus) else frozenset()


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
