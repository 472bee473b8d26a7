"""The cost model against what bench/processes.py has measured: fitted to one point, compared with all others.

python bench/check.py points.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from cost import Data, Machine, Step, predict
from measure import table
from work import Work, count

FITTED = ("f8", 4, 1)  # config, batch, processes
NO_DATA = Data(bytes_per_frame=0.0, decode=1e9)  # the points are steps on clips that are there


def check(file: Path) -> str:
    """The table of predictions and measurements, and the one number that was fitted."""
    measured = json.loads(file.read_text())
    points = {(p["config"], p["batch"], p["processes"]): min(p["seconds"]) for p in measured["points"]}
    works = {config: count(overrides) for config, overrides in measured["configs"].items()}
    machine = fitted(machine_of(measured), works[FITTED[0]], points[FITTED])
    rows = []
    for (config, batch, processes), seconds in points.items():
        step = _predict(works[config], machine, batch, processes)
        rows.append([
            config, batch, processes, f"{1e3 * seconds:.0f}", f"{1e3 * step.seconds:.0f}",
            "fitted" if (config, batch, processes) == FITTED else f"{step.seconds / seconds - 1:+.0%}",
            *(f"{1e3 * part:.1f}" for part in (step.matrix, step.memory, step.host, step.network)),
        ])  # fmt: skip
    header = ["config", "batch", "processes", "measured, ms", "predicted, ms", "error"]
    share = machine.achieved["matrix"]
    return (
        f"Fitted: convolutions reach {share:.0%} of a large product's {machine.matrix_rate['fp32'] / 1e9:.0f} GFLOP/s; "
        f"{machine.memory_rate / 1e9:.1f} GB/s, {1e6 * machine.launch:.1f} µs an operator, "
        f"{machine.link_rate / 1e9:.2f} GB/s and {1e6 * machine.latency['device']:.0f} µs a hop were measured.\n\n"
        + table([*header, "matrix", "memory", "operators", "network"], rows)
    )


def machine_of(measured: dict[str, Any]) -> Machine:
    """The one that was measured on: processes have a core each, and messages take their processors' time."""
    here, two = measured["machine"], measured["messages"]["2"]
    hop = two["small"]["all-reduce of 8 bytes"][1] / 2
    return Machine(
        matrix_rate={"fp32": here["matrix_rate"]},
        memory_rate=here["memory_rate"],
        memory_bytes=float("inf"),
        gpus_per_node=1,
        cores_per_node=2,
        link_rate=two["rate"][1],
        network_rate=two["rate"][1],
        storage_rate=float("inf"),
        achieved={"matrix": 1.0, "memory": 1.0, "network": 1.0},
        launch=here["launch"],
        latency={"device": hop, "host": 0.0},  # what a loop does beside its steps is not in the points
        asynchronous=False,
        overlap=0.0,
    )


def fitted(machine: Machine, work: Work, seconds: float) -> Machine:
    """With that share of the matrix rate with which the prediction of one point is right."""
    step = _predict(work, machine, FITTED[1], FITTED[2])
    matrix = seconds - (step.seconds - step.matrix)
    share = work.alone.at(FITTED[1]).flops / (machine.matrix_rate["fp32"] * matrix)
    return dataclasses.replace(machine, achieved=machine.achieved | {"matrix": share})


def _predict(work: Work, machine: Machine, batch: int, processes: int) -> Step:
    # The points' steps all have the discriminator in them.
    return predict(work, machine, NO_DATA, "fp32", processes, batch / processes)


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
