"""Folders that vqgan wrote: a run's pictures and decoded videos are files like any other, but never a folder's data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vqgan.errors import ConfigError

# A run folder is known by what it has before its first picture; one that lost its config keeps the other two.
RUN = (frozenset({"config.yaml", "overrides.yaml"}), frozenset({"environment.json", "metrics.jsonl"}))
DECODED = frozenset({"decoding.json"})


def is_own(names: Collection[str]) -> bool:
    """Whether a folder with these files is a run folder, or one that `vqgan decode` wrote."""
    return any(sign.issubset(names) for sign in (*RUN, DECODED))


def refuse_run_folder(root: Path, key: str) -> None:
    """Raise `ConfigError` if a folder that a user named by `key` is a run folder, or lies in one."""
    place = root.resolve()
    for folder in (place, *place.parents):
        if _is_run(folder):
            lies = "is" if folder == place else f"lies in {folder},"
            goes_on = f", with which its run goes on: resume={folder} {key}=NEW" if key.startswith("data.") else ""
            raise ConfigError(
                f"{key}={root} {lies} the folder of a run, and what a run writes is no data. Name another folder. "
                f"Videos of yours that are in there have to be moved to a new one{goes_on}."
            )


def refuse_output_in_place_of(run: Path, key: str) -> None:
    """Raise `ConfigError` if a folder that is to be written, as a user named it by `key`, is that of a run."""
    if _is_run(run):
        raise ConfigError(f"{key} {run} is the folder of a run, which has files of its own. Name another one.")


def refuse_data_in(run_dir: Path, root: str, key: str) -> None:
    """Raise `ConfigError` if the folder of a run is the one of its data, which `key` names, or is around it."""
    place, data = run_dir.resolve(), Path(root).expanduser().resolve()
    if "://" in root or not data.is_relative_to(place):
        return
    lies = "is also" if data == place else "is around"
    raise ConfigError(
        f"run_dir={run_dir} {lies} {key}={root}: checkpoints, logs and pictures would come among the data. Choose "
        "another run_dir; one below the data is fine. A run that is there already goes on once its data are moved to a "
        f"new folder: resume={run_dir} {key}=NEW."
    )


def _is_run(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in sign) for sign in RUN)
