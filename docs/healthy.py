"""Keep the curves of a healthy run, which reports draw in grey behind others of the same recipe.

    python docs/healthy.py RUN --data "54 real videos of 12 sources, validated on 15 of others"

RUN is the folder of a run by a recipe as it is. From its files it takes the command, the commit, the machine and the
curves, and writes vqgan/reports/assets/healthy/RECIPE.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

from vqgan.files.reading import read_object
from vqgan.reports.differences import config_values, overrides
from vqgan.reports.healthy import KEPT, Kept, Points, beside, command_of, recipe_of
from vqgan.runs.metrics import Metrics, read_metrics

PANELS = ("train/", "validation/", "codebook/")
DULL = ("train/skipped_steps",)
MOST = 40  # points of a curve


def main() -> None:
    """Read a run, write its curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("--data", metavar="WORDS", required=True, help="what it was trained on, for a reader")
    parser.add_argument("--out", metavar="DIR", type=Path, default=KEPT)
    arguments = parser.parse_args()
    kept = keep(arguments.run, arguments.data)
    target = arguments.out / f"{kept['recipe']}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"  {json.dumps(name)}: {json.dumps(points)}" for name, points in kept["curves"].items()]
    head = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in kept.items() if key != "curves"]
    target.write_text("{\n" + "".join(head) + ' "curves": {\n' + ",\n".join(lines) + "\n }\n}\n", encoding="utf-8")
    print(f"{target}: {target.stat().st_size} bytes")


def keep(run: Path, data: str) -> Kept:
    """What is kept of a run."""
    typed, metrics = overrides(run), read_metrics(run)
    recipe = recipe_of(typed, config_values(run))
    if recipe is None or beside(typed):
        raise SystemExit(f"{run} is no run of a recipe as it is: {' '.join(beside(typed))}")
    environment, facts = read_object(run, "environment.json"), read_object(run, "facts.json")
    return {
        "recipe": recipe,
        "command": command_of(typed),
        "commit": str(facts["commit"]),
        "machine": f"{environment['device']}, threads: {environment['threads (OMP_NUM_THREADS)']}",
        "data": data,
        "curves": {
            name: points_of(metrics, name)
            for name in sorted(metrics.columns)
            if name.startswith(PANELS) and name not in DULL
        },
    }


def points_of(metrics: Metrics, name: str) -> Points:
    """A metric at few steps: means over stretches of equal numbers of rows, in four digits."""
    known = metrics.columns[name].numbers()
    length = -(-len(known) // MOST)
    parts = [known[start : start + length] for start in range(0, len(known), length)]
    return {
        "steps": [int(metrics.steps[part[-1][0]]) for part in parts],
        "values": [float(f"{fmean(value for _, value in part):.4g}") for part in parts],
    }


if __name__ == "__main__":
    main()
