"""What `vqgan evaluate` works on: a tokenizer, and the clips that it is measured with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vqgan.config.build import conf_dir, find_class, values_of
from vqgan.data import BadFiles, ClipDataset, Corpus
from vqgan.data.loader import none_readable, spread, stream_evenly
from vqgan.data.reading.files import find_files
from vqgan.errors import ConfigError, check
from vqgan.evaluation.codec import Codec
from vqgan.evaluation.counterparts import Counterparts
from vqgan.evaluation.evaluator import Clip
from vqgan.evaluation.function import FromFunction, MeanColour
from vqgan.evaluation.reconstructor import Reconstructor
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.saved import load_config
from vqgan.tokenizer import folder as folder_of_tokenizer
from vqgan.tokenizer.tokenizer import Tokenizer, rebuild

SHARD = ".tar"
OUTSIDE = ("python:", "videos:", "codec:", "mean-colour")


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        source: what the user called it.
        name: how it is known elsewhere: the last two folders of its path, or its hub id; no place where things lie.
        network: rebuilt; or what does a tokenizer's work.
        folder: where its evaluation is kept; None for what has none.
        step: of its checkpoint; None for what is no run.
        data: the values of the run's own section `data`; None for what is no run.
        trained_on: the fingerprint of the data that it was trained on; None if it is not known.
    """

    source: str
    name: str
    network: Tokenizer | Reconstructor
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


def has_data(source: str) -> bool:
    """Whether it is a run, which knows the data that it was trained on."""
    return (Path(source) / "checkpoints").is_dir()


def is_outside(source: str) -> bool:
    """Whether it is none of this project's tokenizers; a folder that is called so is one."""
    return source.startswith(OUTSIDE) and not Path(source).is_dir()


def open_outside(source: str, codecs: Mapping[str, Any]) -> list[Subject]:
    """What is measured beside tokenizers; of a codec each point of its curve.

    Args:
        source: `python:…`, `videos:DIR`, `codec:NAME` or `mean-colour`.
        codecs: the values of each, by its name.

    Raises:
        ConfigError: there is no such thing.
    """
    kind, _, rest = source.partition(":")
    made: list[tuple[str, Reconstructor]]
    if kind == "python":
        function = FromFunction(rest)
        made = [(function.name, function)]
    elif kind == "videos":
        folder = Counterparts(rest)
        made = [(folder.name, folder)]
    elif kind == "codec":
        if rest not in codecs:
            raise ConfigError(f"{source}: there is no codec of that name. Choose from {', '.join(map(str, codecs))}.")
        values = dict(codecs[rest])
        qualities = values.pop("qualities")
        numbers = isinstance(qualities, list) and all(isinstance(quality, int | float) for quality in qualities)
        check(numbers and bool(qualities), f"codecs.{rest}.qualities", qualities, "a list of numbers")
        points = [Codec(rest, quality, **values) for quality in qualities]
        made = [(point.name, point) for point in points]
    else:
        made = [(source, MeanColour())]
    return [Subject(source, name, network, None, None, None, None) for name, network in made]


def data_section(subject: Subject | None, root: str | None) -> dict[str, Any]:
    """The values of `data`: the run's own; those of `conf/data` for what is no run, or read files of another kind.

    Args:
        subject: whose; None for what is outside, where there is no tokenizer to go by.
        root: the folder to take instead of the run's.

    Raises:
        ConfigError: it is no run, and there is no folder.
        DataError: the folder holds nothing.
    """
    values = None if subject is None else subject.data
    if root is None:
        if values is None:
            source = "What is measured" if subject is None else subject.source
            raise ConfigError(f"{source} is no run, so it has no data of its own; name a folder: --data DIR.")
        return values
    kinds = _kinds_of_data()
    if values is not None:  # the run's own class first: of those that read the same files it is the one to take
        own = find_class(values.get("_target_"), "data")
        check(issubclass(own, Corpus), "data._target_", values["_target_"], "a class of data")
        kinds = {own: next((name for kind, name in kinds.items() if kind is own), own.__name__), **kinds}
    kind = _kind_for(root, kinds)
    if values is None or kind is not own:
        section = OmegaConf.load(conf_dir() / "data" / f"{kinds[kind]}.yaml")
        assert isinstance(section, DictConfig)
        # Of nothing of ours there is no resolution either: it has to be typed.
        resolution = subject.network.resolution if subject and isinstance(subject.network, Tokenizer) else None
        section.update({"root": root, "resolution": resolution})
        usual = values_of(section, "data")
        # The limits suit the kind of reading.
        kept = usual.keys() - {"_target_", *(["limits"] if SHARD in kind.reads() else [])}
        values = usual | {key: value for key, value in (values or {}).items() if key in kept}
    return values | {"root": root, "val_root": None}


def _kinds_of_data() -> dict[type[Corpus], str]:
    """The classes of `conf/data`, each with the name of its choice."""
    kinds = {}
    for file in sorted((conf_dir() / "data").glob("*.yaml")):
        section = OmegaConf.load(file)
        assert isinstance(section, DictConfig)
        kinds[find_class(section.get("_target_"), f"data={file.stem}")] = file.stem
    return kinds


def _kind_for(root: str, kinds: Mapping[type[Corpus], str]) -> type[Corpus]:
    """The first of the kinds of data that reads most files of a folder; what it leaves out is warned of."""
    folder = Path(root).expanduser()
    if "://" in root or any(folder.glob(f"shard-*{SHARD}")):
        return next(kind for kind in kinds if SHARD in kind.reads())
    reads = {kind: kind.reads() - {SHARD} for kind in kinds}
    files = find_files(folder, "--data", frozenset[str]().union(*reads.values()))
    suffixes = [file.suffix.lower() for file in files]
    counts = {kind: sum(suffix in reads[kind] for suffix in suffixes) for kind in kinds}
    best, *others = sorted(counts, key=lambda kind: -counts[kind])
    left_out = [kind for kind in others if any(suffix in reads[kind] - reads[best] for suffix in suffixes)]
    if left_out:
        held = " and ".join(f"{counts[kind]} {kinds[kind]}" for kind in (best, *left_out))
        warnings.warn(
            f"--data={root} holds {held}. The {kinds[best]} are measured, the "
            f"{' and '.join(kinds[kind] for kind in left_out)} are left out.",
            stacklevel=2,
        )
    return best


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
