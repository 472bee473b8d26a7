"""What a run's folder may hold instead of its files: things that are no files, and metrics that are none."""

from __future__ import annotations

import os
from pathlib import Path


def lead_to_zeros(file: Path) -> None:
    file.symlink_to("/dev/zero")


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def lead_to_itself(file: Path) -> None:
    file.symlink_to(file.name)


def make_folder(file: Path) -> None:
    file.mkdir()


METRICS = {
    "deep lists": "[" * 10000,
    "no step": "{}",
    "a number": "1",
    "text for a figure": '{"step": 1, "validation/psnr": "high"}',
    "a list for a figure": '{"step": 1, "validation/psnr": [1]}',
    "a figure of 400 digits": '{"step": 1, "validation/psnr": 1' + "0" * 400 + "}",
    "a list for a step": '{"step": [1]}',
    "nothing": "",
    "zeros": "\0",
}
