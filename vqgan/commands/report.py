"""Write the page of a run, or one page of several runs over each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqgan.commands.parser import command_parser
from vqgan.errors import ConfigError
from vqgan.files.writing import replace_text
from vqgan.reports.page import page, write_report
from vqgan.runs.saved import runs_in

MOST_RUNS = 40  # in one page; it would be slow and its lines could not be told apart


def main() -> None:
    """`vqgan report RUN... [--out FILE]`."""
    parser = command_parser(
        "report",
        f"{__doc__} It opens in any browser, without a network.",
        "example:\n  vqgan report runs/vqgan/2026-01-31_12-00-00 runs/vqgan/2026-02-01_09-30-00 --out both.html",
    )
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="a run folder, or a folder that holds some, as a multirun's"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="file to write; else report.html, in the folder, for several folders here",
    )
    arguments = parser.parse_args()
    print(report(arguments.runs, arguments.out))


def report(folders: Sequence[Path], out: Path | None) -> Path:
    """Write the page of all runs in some folders.

    Args:
        folders: run folders, and folders that hold some.
        out: the file to write; by default `report.html`, in the folder where one is given, else in the current one.

    Raises:
        ConfigError: a folder holds no run.
        StorageError: the file cannot be written.
    """
    runs = list({run.resolve(): run for folder in folders for run in runs_in(folder)}.values())
    if len(runs) > MOST_RUNS:
        raise ConfigError(f"There are {len(runs)} runs, and one page shows at most {MOST_RUNS}. Name fewer folders.")
    if len(runs) == 1 and out is None:
        written = write_report(runs[0])
        assert written is not None
        return written
    target = out or (folders[0] if len(folders) == 1 else Path.cwd()) / "report.html"
    replace_text(target, page(runs))
    return target
