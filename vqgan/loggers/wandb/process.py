"""The process that talks to Weights & Biases: rows come in as lines of JSON, the first one says which run it is.

It shares nothing with the training process but the pipe. It is run as a file, and imports nothing of this package.
"""

from __future__ import annotations

import collections
import json
import os
import socket
import sys
import time
import traceback
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 5.0
INIT_SECONDS = 30.0  # after which a server counts as unreachable
KEEPING_SECONDS = 10.0  # after which a row is surely in an offline run's file: it is written every five seconds


def main() -> None:
    """Start the run, log every row, pass on what else comes, finish at the end of the input."""
    settings = json.loads(sys.stdin.readline())
    stage_beside(settings)
    import wandb

    run, offline = start(wandb, settings)
    # The axis is our own step. W&B's own counter is the same number, so that an online run that goes on takes no row
    # twice; of an offline one it would not know.
    run.define_metric("trainer/step", hidden=True)
    run.define_metric("*", step_metric="trainer/step")
    for name in settings["best"]:
        run.define_metric(name, step_metric="trainer/step", summary="none")  # we give the best one
    kept = Kept(Path(settings["steps"]), settings["id"]) if offline else None
    end = {"exit_code": 1, "goes_on": False}  # of a training process that is gone without a word
    for line in sys.stdin:
        row = json.loads(line)
        if row["kind"] == "step":
            if kept is None or kept.is_new(row["step"]):
                log(wandb, run, row)
        elif row["kind"] == "alert":
            run.alert(title=row["title"], text=row["text"], level=row["level"])
        elif row["kind"] == "end":
            end = row
        else:
            try:
                {"table": show_table, "artifact": log_artifact}[row["kind"]](wandb, run, row)
            except Exception:  # a file has gone, say: the rest is worth having
                traceback.print_exc()
    if end["goes_on"]:
        run.mark_preempting()
    run.finish(exit_code=end["exit_code"])
    if kept is not None:
        kept.settle(0.0)


def log(wandb: Any, run: Any, row: dict[str, Any]) -> None:
    """Log one step: scalars, pictures as images, clips as videos; and the best values, in the summary."""
    media = {}
    for name, file in row["files"].items():
        try:
            media[name] = wandb.Video(file, format="mp4") if file.endswith(".mp4") else wandb.Image(file)
        except Exception:  # the scalars are worth having
            traceback.print_exc()
    run.log({"trainer/step": row["step"], **row["scalars"], **media}, step=row["step"], commit=True)
    if row["best"]:
        run.summary.update(row["best"])


def show_table(wandb: Any, run: Any, row: dict[str, Any]) -> None:
    """Show evaluations as rows: step, hours, picture, measures. It stands in the summary, which needs no step."""
    if not row["rows"]:
        return
    measures = sorted({name for shown in row["rows"] for name in shown if "/" in name})
    columns = ["step", "hours", "originals above, reconstructions below", *(m.rpartition("/")[2] for m in measures)]
    data = [
        [shown["step"], shown["hours"], wandb.Image(shown["file"]), *(shown.get(measure) for measure in measures)]
        for shown in row["rows"]
    ]
    run.summary.update({"reconstructions/over_steps": wandb.Table(columns=columns, data=data, allow_mixed_types=True)})


def log_artifact(wandb: Any, run: Any, row: dict[str, Any]) -> None:
    """Log a folder's files as an artifact: copies, or where they lie on this machine."""
    artifact = wandb.Artifact(f"{row['name']}-{run.id}", row["type"], metadata=row["metadata"])
    for file in sorted(Path(row["folder"]).iterdir()):
        if row["copied"]:
            artifact.add_file(str(file), skip_cache=True, policy="immutable")  # no copy here on its way
        else:
            artifact.add_reference(file.as_uri(), name=file.name, checksum=False)  # it could take minutes
    run.log_artifact(artifact, aliases=row["aliases"])


class Kept:
    """Up to which step an offline run's rows are surely kept: a run that goes on writes none of them twice.

    Args:
        file: where the step is kept.
        run_id: of the run; what is kept of another one does not count.
    """

    def __init__(self, file: Path, run_id: str) -> None:
        self.file, self.run_id = file, run_id
        self.waiting: collections.deque[tuple[float, int]] = collections.deque()
        try:
            content = json.loads(file.read_text())
            self.step = int(content["step"]) if content["id"] == run_id else -1
        except (OSError, ValueError, KeyError, TypeError):
            self.step = -1

    def is_new(self, step: int) -> bool:
        """Take note of a row, if it is a new one."""
        if step <= self.step:
            return False
        self.waiting.append((time.monotonic(), step))
        self.settle(KEEPING_SECONDS)
        return True

    def settle(self, age: float) -> None:
        """Write down the newest step that is so many seconds old."""
        step = None
        while self.waiting and self.waiting[0][0] <= time.monotonic() - age:
            step = self.waiting.popleft()[1]
        if step is not None:
            replace(self.file, {"id": self.run_id, "step": step})


def stage_beside(settings: dict[str, Any]) -> None:
    """Keep in the run's own folder what W&B would put into the user's until it is uploaded."""
    os.environ.setdefault("WANDB_DATA_DIR", str(Path(settings["status"]).with_name("data")))


def start(wandb: Any, settings: dict[str, Any]) -> tuple[Any, bool]:
    """The run, and whether it is offline, after writing down which it is and why."""
    mode = chosen_mode() if settings["mode"] == "auto" else settings["mode"]
    reason = None
    try:
        if mode == "online":
            reach(wandb.setup().settings.base_url)
        run = open_run(wandb, settings, mode)
    except Exception as error:  # whatever it is, offline needs no server
        if mode == "offline":
            raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        wandb.teardown()  # else the run's id counts as in use
        run = open_run(wandb, settings, "offline")
    offline = mode == "offline" or reason is not None
    status = {
        "url": None if offline else run.url,
        "directory": str(Path(run.dir).parent) if offline else None,
        "reason": reason,
    }
    replace(Path(settings["status"]), status)
    keep_values(run, settings["config"])
    return run, offline


def keep_values(run: Any, config: dict[str, Any]) -> None:
    """Add values that a sweep's agent has displaced: where it varies `model`, that is the choice alone.

    They go by their full keys, `model.quantizer.decay`, as the agent's own do.
    """
    for section, values in config.items():
        if isinstance(values, dict) and isinstance(run.config.get(section), str):
            run.config.update({key: value for key, value in by_full_key(values, section) if key not in run.config})


def by_full_key(values: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """The values of nested sections."""
    for name, value in values.items():
        key = f"{path}.{name}"
        if isinstance(value, dict):
            yield from by_full_key(value, key)
        else:
            yield key, value


def replace(file: Path, content: dict[str, Any]) -> None:
    """Write a file so that it is never there in part."""
    aside = file.with_name(f"{file.name}.new")
    aside.write_text(json.dumps(content))
    aside.replace(file)


def reach(url: str) -> None:
    """Raise OSError if nobody answers there: W&B itself would try again for half a minute."""
    if not urllib.request.getproxies():
        address = urllib.parse.urlsplit(url)
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname, port), CONNECT_SECONDS).close()


def open_run(wandb: Any, settings: dict[str, Any], mode: str) -> Any:
    """`wandb.init`."""
    private = settings["private"]
    hidden = {
        "disable_git": True, "disable_code": True, "save_code": False, "x_disable_meta": True,
        "x_disable_machine_info": True, "x_save_requirements": False, "host": "private", "username": "private",
        "email": "private", "program": "train.py",
    }  # fmt: skip
    return wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        group=settings["group"],
        tags=settings["tags"],
        job_type=settings["job_type"],
        name=settings["name"],
        id=settings["id"],
        resume="allow",
        dir=settings["dir"],
        config=settings["config"],
        mode=mode,
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_SECONDS,
            x_stats_pid=settings["pid"],  # the system panels are to show training, not this process
            x_stats_track_process_tree=True,  # with its workers
            **(hidden if private else {}),
        ),
    )


def chosen_mode() -> str:
    """`WANDB_MODE` if it is set, else `online` if W&B would find credentials, else `offline`."""
    import wandb
    from wandb.sdk.lib import wbauth

    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    settings = wandb.setup().settings
    return "online" if settings.api_key or wbauth.read_netrc_auth(host=settings.base_url) else "offline"


if __name__ == "__main__":
    code = 1
    try:
        main()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)  # W&B's own way out may wait for a service that has gone
