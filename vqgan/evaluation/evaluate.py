"""The wiring of `vqgan evaluate`: tokenizers and values in, figures out."""

from __future__ import annotations

import contextlib
import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vqgan.config.build import build
from vqgan.config.command import command_config
from vqgan.config.outside import look_in
from vqgan.data import BadFiles, ClipDataset, Corpus
from vqgan.data.loader import spread
from vqgan.errors import ConfigError, check
from vqgan.evaluation.evaluator import Evaluator, Measurement
from vqgan.evaluation.report import BAD_FILES, Report, add_row, keep_other, rows_before, table, write_json
from vqgan.evaluation.subject import Subject, data_section, open_subject, read_clips
from vqgan.files.writing import storing
from vqgan.runs.provenance import environment
from vqgan.runtime.process import this_process

PACKAGES = ("lpips", "torch-fidelity")  # beside those that a run depends on


def evaluate(
    runs: Sequence[str],
    data: str | None,
    out: Path | None,
    csv: Path | None,
    typed: Sequence[str],
    parts: Path | None = None,
) -> list[Report]:
    """Measure tokenizers; write what was measured after each, and print one table of all.

    Args:
        runs: run folders, exported folders or hub ids.
        data: a folder to take, all of it, instead of each run's own validation data.
        out: where the report of the only run goes; None for its folder.
        csv: the table that gets a row for each; None for the one beside the report.
        typed: values as `key=value`.
        parts: a folder with classes that runs are built of, beside this package's; their code is run.

    Raises:
        VQGANError: see `vqgan.errors`.
    """
    if this_process().count > 1:
        raise ConfigError("vqgan evaluate measures in one process: start it without torchrun.")
    if out is not None and len(runs) > 1:
        raise ConfigError(f"--out {out} is one file, and {len(runs)} tokenizers are measured: leave it out.")
    reports: list[Report] = []
    evaluator: Evaluator | None = None
    if parts is not None:
        look_in(parts)
    for run in runs:
        subject = open_subject(run, parts)
        config = command_config("evaluate", typed, {"data": data_section(subject, data)})
        folder: Corpus = build(config.pop("data"), "data")
        evaluator = evaluator or build(config, "")
        places = _places(subject, out, csv)
        report = _measure(subject, folder, evaluator, places.bad_files, whole=data is not None)
        if out is None:
            keep_other(report, places.report)
        write_json(report, places.report)
        add_row(report, places.rows)
        reports.append(report)
        print(f"{run} is measured: {places.report}, {places.rows}", flush=True)
    print(f"\n{table(reports)}", flush=True)
    return reports


@dataclass(frozen=True)
class _Places:
    report: Path
    rows: Path
    bad_files: Path


def _places(subject: Subject, out: Path | None, csv: Path | None) -> _Places:
    """Where results go, which is found out before anything is measured."""
    report = out or (subject.folder / "evaluation.json" if subject.folder is not None else None)
    if report is None:
        raise ConfigError(f"{subject.source} is no folder here; say where to write the figures: --out FILE.json.")
    rows = csv or report.with_suffix(".csv")
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


def _measure(subject: Subject, folder: Corpus, evaluator: Evaluator, ledger: Path, whole: bool) -> Report:
    """Measure on all of a folder, or on its validation split; what cannot be used is in the ledger."""
    unit = math.lcm(*subject.network.downsampling[1:])
    fits = folder.resolution % unit == 0
    check(fits, "data.resolution", folder.resolution, f"a multiple of {unit}, the tokenizer's downsampling")
    bad_files = _Ledger(ledger, folder)
    dataset = folder.whole(bad_files) if whole else folder.datasets(bad_files)[1]
    if not whole and subject.trained_on not in (None, folder.fingerprint):
        warnings.warn(
            f"The data are not those that {subject.source} was trained on: {folder.fingerprint} now, "
            f"{subject.trained_on} then. It may be measured on files that it was trained on.",
            stacklevel=2,
        )
    with contextlib.closing(read_clips(dataset, evaluator.clips, folder, bad_files)) as clips:
        evaluation = evaluator.measure(subject.network, clips)
    protocol = {
        "tokenizer": {"name": subject.name, "sha256": subject.network.sha256(), "step": subject.step},
        "data": _data(folder, dataset, evaluator, evaluation, whole) | {"bad_files": len(bad_files.reasons)},
        "settings": {
            "device": str(evaluator.hardware),
            **{key: getattr(evaluator, key) for key in
               ("clips", "batch_frames", "precision", "replicates", "confidence", "seed")},
        },
        "feature_networks": {f"{key}_sha256": value for key, value in evaluator.networks.checksums.items()},
        "versions": environment(evaluator.hardware, evaluator.precision) | _versions(),
    }  # fmt: skip
    return Report(evaluation.metrics, protocol, evaluation.psnr_by_position)


def _data(
    folder: Corpus, dataset: ClipDataset, evaluator: Evaluator, evaluation: Measurement, whole: bool
) -> dict[str, Any]:
    """What was measured on, without saying where it lies."""
    stride, fps = folder.times()
    root = folder.root if whole or folder.val_root is None else folder.val_root
    return {
        "root": Path(root).name,
        "fingerprint": folder.fingerprint,
        "split": "all files" if whole else "validation",
        "val_fraction": None if whole or folder.val_root is not None else folder.val_fraction,
        "videos": evaluation.videos,
        "clips": evaluation.clips,
        "frames": evaluation.frames,
        "unreadable_clips": len(spread(len(dataset), evaluator.clips)) - evaluation.clips,
        "resolution": folder.resolution,
        "resize": "shorter side to the resolution",
        "crop": "center",
        "values": "8 bit, reconstructions rounded",
        "clip_frames": evaluation.frames // evaluation.clips,
        "stride": stride,
        "fps": fps,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
