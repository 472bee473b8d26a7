"""The process that talks to Weights & Biases: rows come in as lines of JSON, the first one says which run it is.

It shares nothing with the training process but the pipe. It is run as a file, and imports nothing of this package.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 5.0
INIT_SECONDS = 30.0  # after which a server counts as unreachable
PATHS = ("name", "run_dir", "resume", "init_from", "root", "val_root", "weights")  # keys that are not for others to see


def main() -> None:
    """Start the run, log every row, pass alerts on, finish at the end of the input."""
    settings = json.loads(sys.stdin.readline())
    import wandb

    run = start(wandb, settings)
    # Steps come from our checkpoints: across a resume W&B's own counter starts anew.
    run.define_metric("trainer/step", hidden=True)
    run.define_metric("*", step_metric="trainer/step")
    for name in ("validation/psnr", "validation/ssim"):
        run.define_metric(name, step_metric="trainer/step", summary="max")
    for line in sys.stdin:
        row = json.loads(line)
        if "text" in row:
            run.alert(title=row["title"], text=row["text"], level="WARN")
            continue
        media = {
            name: wandb.Video(file, format="mp4") if file.endswith(".mp4") else wandb.Image(file)
            for name, file in row["files"].items()
        }
        run.log({"trainer/step": row["step"], **row["scalars"], **media})
    run.finish()


def start(wandb: Any, settings: dict[str, Any]) -> Any:
    """The run, online or offline, after writing down which it is and why."""
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
    aside = Path(settings["status"] + ".new")
    aside.write_text(json.dumps(status))
    aside.replace(settings["status"])
    return run


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
        name="private" if private else settings["name"],
        id=settings["id"],
        resume="allow",
        dir=settings["dir"],
        config=without_paths(settings["config"]) if private else settings["config"],
        mode=mode,
        settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS, **(hidden if private else {})),
    )


def without_paths(values: Any) -> Any:
    """The values of nested sections without names and paths."""
    if isinstance(values, dict):
        return {key: without_paths(value) for key, value in values.items() if key not in PATHS}
    return "private" if isinstance(values, str) and os.sep in values else values


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
