"""Compare runs, or those of a sweep: what was varied, what each came to, what mattered, and the best one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vqgan.commands.parser import add_json, command_parser, only_json

EPILOG = """\
examples:
  vqgan compare runs/vqgan/2026-01-31_12-00-00                       a multirun's folder; sweeps that still run too
  vqgan compare runs/a runs/b runs/sweep --metric validation/lpips --out lpips.html
  vqgan compare runs/tokenizers runs/priors                          what tokens cost, and how good they are

It prints a table, and writes a page (compare.html, in the folder if one is given, else here) and compare.csv beside it.
Where there are tokenizers that vqgan evaluate has measured, and priors of their tokens, it writes rates.html and
rates.csv too: bits a second and a pixel under the prior, against quality, beside the codecs that were measured there.
"""
MOST_RUNS = 2000  # in one page
WIDTH = 120  # characters, where it is not a terminal that this is printed to


def main() -> None:
    """`vqgan compare RUN|FOLDER... [--metric NAME] [--out FILE.html] [--json]`."""
    parser = command_parser("compare", __doc__, EPILOG)
    parser.add_argument(
        "folders", metavar="RUN|FOLDER", type=Path, nargs="+", help="a run folder, or one that holds some, at any depth"
    )
    parser.add_argument("--metric", metavar="NAME", help="as psnr or train/total; else the objective of the runs")
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="the page; its table gets the same name, .csv")
    add_json(parser)
    arguments = parser.parse_args()
    with only_json(arguments.json) as result:
        said = compare(arguments.folders, arguments.metric, arguments.out, arguments.json)
        print(said, file=result)


def compare(folders: Sequence[Path], metric: str | None, out: Path | None, wants_json: bool = False) -> str:
    """Write the comparison of all runs in some folders; returns what is to be read of it.

    Args:
        folders: run folders, and folders that hold some.
        metric: to compare by; by default the runs' objective, normally `validation/psnr`.
        out: the page to write.
        wants_json: whether a program reads it.

    Raises:
        ConfigError: a folder holds no run, or nothing can be compared.
        StorageError: a file cannot be written.
    """
    from vqgan.errors import ConfigError
    from vqgan.files.writing import replace_text
    from vqgan.reports import rates
    from vqgan.reports.comparison import page
    from vqgan.reports.differences import config_values
    from vqgan.reports.run import is_prior
    from vqgan.reports.study import study
    from vqgan.reports.table import as_csv, as_json
    from vqgan.reports.text import describe
    from vqgan.reports.trial import is_trial
    from vqgan.runs.saved import runs_in

    runs = list({run.resolve(): run for folder in folders for run in runs_in(folder, is_trial)}.values())
    if len(runs) > MOST_RUNS:
        raise ConfigError(f"There are {len(runs)} runs, and one page shows at most {MOST_RUNS}. Name fewer folders.")
    target = out or (folders[0] if len(folders) == 1 else Path()) / "compare.html"
    table = target.with_suffix(".csv")
    if table == target:
        raise ConfigError(f"--out {out}: that is the name of the table beside the page. Name a page, as compare.html.")
    plane = rates.points(runs, folders)
    if plane:  # a study is of the tokenizers alone then
        runs = [run for run in runs if not is_prior(config_values(run))]
    found = study(runs, metric)
    replace_text(target, page(found, target.parent.resolve()))
    replace_text(table, as_csv(found))
    if plane:
        rates.write(plane, target.parent)
    if wants_json:
        rated = {**as_json(found), "rates": list(map(asdict, plane)), "page": str(target), "table": str(table)}
        return json.dumps(rated, indent=1, allow_nan=False)
    said = f"{describe(found, shutil.get_terminal_size((WIDTH, 0)).columns)}\n\n{target}\n{table}"
    if plane:
        said += f"\n\nRate and distortion\n{rates.as_text(plane)}\n\n{target.with_name('rates.html')}"
    return said
