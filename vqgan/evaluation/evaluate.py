"""The wiring of `vqgan evaluate`: tokenizers and values in, figures out."""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vqgan.config.build import build, values_of
from vqgan.config.command import command_config
from vqgan.config.outside import look_in
from vqgan.data import BadFiles, ClipDataset, Corpus
from vqgan.data.loader import spread
from vqgan.errors import ConfigError, StoppedError, VQGANError, check
from vqgan.evaluation.counterparts import Counterparts
from vqgan.evaluation.evaluator import Evaluator, Measurement
from vqgan.evaluation.figures import UNITS
from vqgan.evaluation.gallery import Gallery
from vqgan.evaluation.reconstructor import Reconstructor
from vqgan.evaluation.report import (
    BAD_FILES,
    Report,
    add_row,
    as_json,
    keep_other,
    remarks,
    rows_before,
    table,
    write_json,
)
from vqgan.evaluation.showing import page_entries
from vqgan.evaluation.subject import Subject, data_section, has_data, is_outside, open_outside, open_subject, read_clips
from vqgan.files.writing import replace_text, storing
from vqgan.reports.referee import page as page_of
from vqgan.reports.trial import read_trial
from vqgan.reports.varied import short_names, short_value, varied
from vqgan.runs.provenance import environment
from vqgan.runs.saved import is_run
from vqgan.runtime.process import this_process
from vqgan.tokenizer.tokenizer import Tokenizer

PACKAGES = ("lpips", "torch-fidelity")  # beside those that a run depends on
OUT = "evaluation"  # the folder, here, of what has none of its own
PAGE = "evaluation.html"


def evaluate(
    runs: Sequence[str],
    data: str | None,
    out: Path | None,
    csv: Path | None,
    typed: Sequence[str],
    parts: Path | None = None,
    show_json: Callable[[str], None] | None = None,
) -> list[Report]:
    """Measure tokenizers and others; write what was measured after each, and print one table of all.

    One that fails is a line below the table, and the others are measured; of a single one the error is raised.

    Args:
        runs: run folders, exported folders or hub ids; and what is measured beside them, see `open_outside`. All on the
            same frames: the data of the first run.
        data: a folder to take, all of it, instead of the validation data of the first run.
        out: where the report of the only run goes, or a folder for reports, table and page of all; None for each run's
            folder, and `evaluation` for what has none.
        csv: the table that gets a row for each; None for the one beside the report.
        typed: values as `key=value`.
        parts: a folder with classes that runs are built of, beside this package's; their code is run.
        show_json: gets all of it as one JSON document, beside what is printed.

    Raises:
        VQGANError: see `vqgan.errors`.
    """
    if this_process().count > 1:
        raise ConfigError("vqgan evaluate measures in one process: start it without torchrun.")
    if out is not None and out.suffix == ".json" and len(runs) > 1:
        raise ConfigError(f"--out {out} is one file, and {len(runs)} tokenizers are measured: name a folder.")
    if parts is not None:
        look_in(parts)
    session = _Session(runs, data, out, csv, typed, parts)
    for run in runs:
        session.measure_all(run)
    if not session.reports:
        raise session.failures[0][1]
    failed = [
        f"not measured: {error}" if str(error).startswith(name) else f"{name} is not measured: {error}"
        for name, error in session.failures
    ]
    print("\n" + "\n".join([table(session.reports, session.varied()), *failed]), flush=True)
    session.write_page(failed)
    if show_json is not None:
        show_json(as_json(session.reports, failed))
    if failed:
        raise IncompleteError(session.failures, len(session.reports))
    return session.reports


class IncompleteError(VQGANError):
    """Some were measured and some were not; ends as the first of those would have."""

    def __init__(self, failures: Sequence[tuple[str, VQGANError]], measured: int) -> None:
        names = ", ".join(name for name, _ in failures)
        super().__init__(f"{measured} of {measured + len(failures)} are measured, and not {names}: see above.")
        self.exit_code = failures[0][1].exit_code


class _Session:
    """Several subjects, one after the other, and what came of them; see `evaluate` for the arguments."""

    def __init__(
        self, runs: Sequence[str], data: str | None, out: Path | None, csv: Path | None, typed: Sequence[str],
        parts: Path | None,
    ) -> None:  # fmt: skip
        self.runs, self.data, self.out, self.csv, self.typed, self.parts = runs, data, out, csv, typed, parts
        self.reports: list[Report] = []
        self.galleries: list[Gallery] = []
        self.folders: dict[str, Path] = {}  # of tokenizers, by name
        self.failures: list[tuple[str, VQGANError]] = []
        self.opened: dict[str, Subject] = {}  # of ours, until it has been measured

    def measure_all(self, source: str) -> None:
        """Measure a subject, of a codec each point of its curve; what fails is kept."""
        try:
            ours = None if is_outside(source) else self._open(source)
            protocol = self._protocol
            subjects = [ours] if ours is not None else open_outside(source, protocol.codecs)
        except StoppedError:
            raise
        except VQGANError as error:
            self.failures.append((source, error))
            return
        finally:
            self.opened.pop(source, None)
        for subject in subjects:
            try:
                self._measure_one(subject, protocol)
            except StoppedError:
                raise
            except VQGANError as error:
                self.failures.append((subject.name, error))

    @cached_property
    def _protocol(self) -> _Protocol:
        """How all are measured: on the data of the first that has some, or with what suits the first of ours."""
        first = None
        ours = [source for source in self.runs if not is_outside(source)]
        for source in sorted(ours, key=lambda source: not has_data(source)):
            with contextlib.suppress(VQGANError):  # which is told when its turn comes
                first = self._open(source)
                break
        config = command_config("evaluate", self.typed, {"data": data_section(first, self.data)})
        if config.data.resolution is None:
            raise ConfigError("No tokenizer here says how large frames are: data.resolution=256, or whatever suits.")
        folder: Corpus = build(config.pop("data"), "data")
        check(config.codecs is not None, "codecs", None, "a section of values")
        codecs = values_of(config.pop("codecs"), "codecs")
        whose = first.name if first is not None and first.data is not None else None
        return _Protocol(folder, self.data is not None, whose, codecs, build(config, ""))

    def _open(self, source: str) -> Subject:
        if source not in self.opened:
            self.opened[source] = open_subject(source, self.parts)
        return self.opened[source]

    def _measure_one(self, subject: Subject, protocol: _Protocol) -> None:
        places = _places(subject, self.out, self.csv)
        gallery = Gallery()
        report = _measure(subject, protocol, places.bad_files, gallery)
        if self.out is None:
            keep_other(report, places.report)
        write_json(report, places.report)
        add_row(report, places.rows)
        self.reports.append(report)
        self.galleries.append(gallery)
        if subject.folder is not None:
            self.folders[subject.name] = subject.folder
        print(f"{subject.name} is measured: {places.report}, {places.rows}", flush=True)

    def varied(self) -> dict[str, list[str]]:
        """What was varied in the runs among them, by their names, as a comparison has it."""
        runs = [(name, folder) for name, folder in self.folders.items() if is_run(folder)]
        trials = [read_trial(folder, name, points=0) for name, folder in runs]
        keys = varied(trials) if len(trials) > 1 else []
        names = short_names([key.name for key in keys])
        return {
            trial.name: [f"{name}={short_value(key.values[n])}" for name, key in zip(names, keys)]
            for n, trial in enumerate(trials)
        }

    def write_page(self, failed: Sequence[str]) -> None:
        """The page of all, where they have a place in common."""
        folder = self.out if self.out is not None else Path(OUT)
        if folder.suffix == ".json" or (self.out is None and not any(map(is_outside, self.runs))):
            if len(self.reports) > 1:
                print("With --out DIR a page is written too: the same clips of all of them, side by side.", flush=True)
            return
        lines = [*remarks(self.reports), *failed]
        replace_text(folder / PAGE, page_of(page_entries(self.reports, self.galleries), UNITS, lines))
        print(f"The same clips of all of them, side by side: {folder / PAGE}", flush=True)


@dataclass(frozen=True)
class _Protocol:
    """What all subjects of one command have in common.

    Args:
        folder: of the clips.
        whole: whether all of it is measured, or its validation split.
        whose: the name of the run whose values of `data` these are, but for what was typed; None: those of `conf/data`.
        codecs: the values of each.
        evaluator: that measures them.
    """

    folder: Corpus
    whole: bool
    whose: str | None
    codecs: Mapping[str, Any]
    evaluator: Evaluator


@dataclass(frozen=True)
class _Places:
    report: Path
    rows: Path
    bad_files: Path


def _places(subject: Subject, out: Path | None, csv: Path | None) -> _Places:
    """Where results go, which is found out before anything is measured."""
    if out is not None and out.suffix == ".json":
        report = out
    elif out is None and subject.folder is not None:
        report = subject.folder / "evaluation.json"
    else:
        if out is None and not is_outside(subject.source):
            raise ConfigError(f"{subject.source} is no folder here; say where to write the figures: --out DIR.")
        report = (out or Path(OUT)) / (re.sub(r"[^\w.=-]+", "_", subject.name)[-100:] + ".json")
    # One table of all that is in a folder; else each report has its own.
    rows = csv or report.with_name("evaluation.csv" if report.parent == (out or Path(OUT)) else f"{report.stem}.csv")
    for folder in (report.parent, rows.parent):
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    rows_before(rows)
    return _Places(report, rows, report.parent / BAD_FILES)


class _Ledger(BadFiles):
    """What an evaluation could not use: of this one alone, and without saying where its folders lie.

    The folder of the report may be a run's, which has a ledger of its own, or an export that is to be shared.
    """

    def __init__(self, file: Path, folder: Corpus) -> None:
        with storing(file):
            file.unlink(missing_ok=True)
        super().__init__(file, folder.max_bad_fraction, folder.max_bad_files)
        self.roots = [Path(root).expanduser() for root in (folder.root, folder.val_root) if root is not None]

    def add(self, path: Path | str, reason: str) -> None:
        """Write one file down, by the names of the folder and of the file in it."""
        root = next((root for root in self.roots if Path(path).is_relative_to(root)), None)
        if root is not None:
            path, reason = Path(root.name) / Path(path).relative_to(root), reason.replace(f"{root}/", "")
        super().add(path, reason)


def _measure(subject: Subject, protocol: _Protocol, ledger: Path, gallery: Gallery | None = None) -> Report:
    """Measure on all of a folder, or on its validation split; what cannot be used is in the ledger."""
    network, folder, evaluator, whole = subject.network, protocol.folder, protocol.evaluator, protocol.whole
    if isinstance(network, Tokenizer):
        unit = math.lcm(*network.downsampling[1:])
        fits = folder.resolution % unit == 0
        check(fits, "data.resolution", folder.resolution, f"a multiple of {unit}, the downsampling of {subject.name}")
    bad_files = _Ledger(ledger, folder)
    dataset = folder.whole(bad_files) if whole else folder.datasets(bad_files)[1]
    if not whole and subject.trained_on not in (None, folder.fingerprint):
        warnings.warn(
            f"The data are not those that {subject.source} was trained on: {folder.fingerprint} now, "
            f"{subject.trained_on} then. It may be measured on files that it was trained on.",
            stacklevel=2,
        )
    read, most = dataset, evaluator.clips
    if isinstance(network, Counterparts):
        read, most = network.read_beside(dataset, spread(len(dataset), most), folder), None
    with contextlib.closing(read_clips(read, most, folder, bad_files)) as clips:
        evaluation = evaluator.measure(network, clips, gallery)
    chosen = spread(len(read), most)
    data = _data(protocol, len(chosen), evaluation)
    if isinstance(network, Reconstructor):
        about = {
            "sha256": network.identity(),
            "curve": network.curve,
            "yardstick": network.yardstick,
            "remarks": network.remarks,
        }
    else:
        about = {"sha256": network.sha256(), "remarks": _remarks(subject, network, data)}
    settings = ("clips", "batch_frames", "precision", "replicates", "confidence", "seed")
    return Report(
        evaluation.metrics,
        {
            "tokenizer": {"name": subject.name, "step": subject.step, **about},
            "data": data | {"bad_files": len(bad_files.reasons), "seconds": _seconds(folder, read, chosen, evaluation)},
            "settings": {"device": str(evaluator.hardware), **{key: getattr(evaluator, key) for key in settings}},
            "feature_networks": {f"{key}_sha256": value for key, value in evaluator.networks.checksums.items()},
            "versions": environment(evaluator.hardware, evaluator.precision) | _versions(),
        },
        evaluation.psnr_by_position,
    )


def _remarks(subject: Subject, network: Tokenizer, data: Mapping[str, Any]) -> list[str]:
    """Where the frames that all are measured on are not those that this one was made for."""
    found = []
    own = subject.data or {}
    other = [key for key in ("clip_frames", "stride", "fps", "resolution") if own.get(key, data[key]) != data[key]]
    if other:
        values = {key: "null" if own[key] is None else own[key] for key in other}
        found.append(f"trained with {' '.join(f'data.{key}={value}' for key, value in values.items())}")
    if data["split"] == "validation" and subject.trained_on not in (None, data["fingerprint"]):
        found.append("trained on other data, and perhaps on some of these files")
    frames = data["clip_frames"]
    missing = network.downsampling.frames(network.downsampling.times(frames)) - frames
    if missing:
        found.append(
            f"it takes 1 + {network.downsampling.time}·n frames: a clip's last one stands for {missing} more, in its "
            "codes and bits alone"
        )
    return found


def _data(protocol: _Protocol, asked: int, evaluation: Measurement) -> dict[str, Any]:
    """What was measured on, without saying where it lies."""
    folder, whole = protocol.folder, protocol.whole
    stride, fps = folder.times()
    root = folder.root if whole or folder.val_root is None else folder.val_root
    return {
        "root": Path(root).name,
        "fingerprint": folder.fingerprint,
        "split": "all files" if whole else "validation",
        "val_fraction": None if whole or folder.val_root is not None else folder.val_fraction,
        "values_of": protocol.whose,
        "videos": evaluation.videos,
        "clips": evaluation.clips,
        "frames": evaluation.frames,
        "frames_sha256": evaluation.frames_sha256,
        "unreadable_clips": asked - evaluation.clips,
        "resolution": folder.resolution,
        "resize": "shorter side to the resolution",
        "crop": "center",
        "values": "8 bit, reconstructions rounded",
        "clip_frames": evaluation.frames // evaluation.clips,
        "stride": stride,
        "fps": fps,
    }


def _seconds(folder: Corpus, dataset: ClipDataset, chosen: Sequence[int], evaluation: Measurement) -> float | None:
    """How long the measured clips last, those that could not be read having been of mean length; None if unknown."""
    _, fps = folder.times()
    if fps is not None:
        return evaluation.frames / fps
    found = [seconds for seconds in map(dataset.lasts, chosen) if seconds is not None]
    return sum(found) / len(found) * evaluation.clips if len(found) == len(chosen) else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
