"""A sweep: many runs in one folder. Its command again does what is left to do, and says what became of each run."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from vqgan.errors import ConfigError, DivergedError, RunFolderInUseError, counted, storing
from vqgan.objective import Objective
from vqgan.run_folder import Status, read_yaml, replace_text, status_of, typed_for
from vqgan.terminal import table
from vqgan.user_errors import USER_ERRORS, end

SWEEP = "sweep.yaml"  # in the sweep's folder: what it is made of
# States of a run that another try would not change: a run that diverged would diverge again.
SETTLED = ("finished", "pruned", "diverged")
# Where things are and where numbers go may change from one start of a sweep to the next.
FREE = ("run_dir", "sweep", "logger", "data.root", "data.val_root", "data.index", "data.workers", "trainer.device")
LONGEST_REASON = 160  # characters of a message in a table


class Sweep(Callback):
    """Hydra's hook before the first job of a sweep and after the last one, in the process that launches them."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Hold the sweep's folder, refuse one of another sweep, and prepare a search to go on."""
        with _ending():
            self.folder = Path(str(config.hydra.sweep.dir))
            self.lock = _hold(self.folder)
            definition = _definition(config)
            _refuse_another(self.folder, definition)
            _write(self.folder, definition)
            _pin(config, "hydra.sweep.dir", str(self.folder))  # one folder, even where jobs differ in `name`
            if OmegaConf.select(config, "hydra.sweeper.storage._target_") == "vqgan.search.Trials":
                from vqgan import search  # Optuna is an extra

                _pin(config, "hydra.sweeper.study_name", definition.study or str(config.hydra.sweeper.study_name))
                search.prepare(config.hydra.sweeper, self.folder)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Say what has become of each job, and end with the exit code of the first that failed, if one did."""
        with _ending():
            jobs = read_jobs(self.folder)
            rows = summary(jobs, Objective(config.objective))
            print(f"\nSweep {self.folder}: {counted(len(jobs), 'job')}\n{table(rows)}")
            if any(job.status.state not in SETTLED for job in jobs):
                print(f"The same command goes on with what is not settled:\n  {_command(sys.argv, self.folder)}")
            sys.stdout.flush()
            self.lock.release()
            sys.exit(exit_code(jobs))


@dataclass(frozen=True)
class Definition:
    """What a sweep is made of, as typed: its jobs follow from it, and their numbers."""

    swept: Mapping[str, str]  # key to its several values, in the order that numbers the jobs
    fixed: Mapping[str, str]  # key to its one value
    study: str | None = None  # of a search: its name in the storage


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    folder: Path
    overrides: Sequence[str]  # of the swept keys
    status: Status

    @property
    def number(self) -> int:
        """Its folder's name."""
        return int(self.folder.name)


def own_overrides(typed: Iterable[str]) -> list[str]:
    """What was typed for one job, without what is the sweep's alone."""
    return [override for override in typed if override.partition("=")[0] not in ("sweep", "run_dir")]


def refuse_another_job(folder: Path, overrides: Sequence[str]) -> None:
    """Refuse a job's folder that was made for other values, as where values were shuffled.

    Raises:
        ConfigError: it was.
    """
    saved = typed_for(folder)
    other = [override for override in own_overrides(overrides) if override not in saved and not _is_free(override)]
    if saved and other:
        raise ConfigError(
            f"{folder} was made for another job: '{other[0]}' was not among what was typed for it. A job's number must "
            "stand for the same values each time; choose another run_dir."
        )


def swept_overrides(folder: Path, typed: Iterable[str]) -> list[str]:
    """Of what was typed for a job in a sweep's folder, what tells it from the others."""
    swept = _read(folder).swept
    return [override for override in typed if override.partition("=")[0] in swept]


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep's folder, by number."""
    numbered = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    return [
        Job(
            path,
            swept_overrides(folder, typed_for(path)),
            status_of(path) or Status("unknown"),
        )
        for path in numbered
    ]


def summary(jobs: Sequence[Job], objective: Objective) -> list[tuple[str, str]]:
    """Rows of a table: how many ended how, each that did not finish with the reason, and the best one."""
    rows = [(state, str(count)) for state, count in Counter(job.status.state for job in jobs).items()]
    for job in jobs:
        if job.status.state not in ("finished", "pruned"):
            reason = (job.status.message or "no reason is known").splitlines()[0]
            short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
            rows.append((f"job {job.number}", f"{job.status.state}: {values_of(job.overrides)}: {short}"))
    finished = [job for job in jobs if job.status.state == "finished"]
    known = [(value, job) for job in finished if (value := objective.best(job.folder)) is not None]
    if known:
        value, job = max(known, key=lambda pair: pair[0])
        rows.append(("best", f"job {job.number}: {values_of(job.overrides)}: {objective.text(value)}"))
    return rows


def values_of(overrides: Sequence[str]) -> str:
    """Overrides in one line, for a person: four digits of numbers."""
    return " ".join(re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", o) for o in overrides)


def exit_code(jobs: Sequence[Job]) -> int:
    """0 if all finished or were pruned; else the code of the first job that another try may mend; else diverged."""
    open_jobs = [job for job in jobs if job.status.state not in SETTLED]
    if open_jobs:
        return open_jobs[0].status.exit_code or 1
    return DivergedError.exit_code if any(job.status.state == "diverged" for job in jobs) else 0


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """End the process by `SystemExit` where a callback fails: of an error Hydra would make a warning."""
    try:
        yield
    except USER_ERRORS as error:
        end(error)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _hold(folder: Path) -> FileLock:
    if (folder / "config.yaml").exists():
        raise ConfigError(f"run_dir={folder} is the folder of a single run; a sweep needs one of its own.")
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderInUseError(
            f"The sweep in {folder} is running. Wait for it, or choose another run_dir."
        ) from None
    return lock


def _definition(config: DictConfig) -> Definition:
    params = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}), resolve=False)
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(params, dict)
    assert isinstance(typed, list)
    overrides = OverridesParser.create().parse_overrides(
        [*(f"{key!s}={value}" for key, value in params.items()), *typed]
    )
    last = {str(o.get_key_element()): o for o in overrides}  # a key keeps the place where it was first
    text = {key: str(o.input_line).partition("=")[2] for key, o in last.items()}
    swept = {key: text[key] for key, o in last.items() if o.is_sweep_override()}
    name = OmegaConf.select(config, "hydra.sweeper.study_name")
    return Definition(swept, {key: value for key, value in text.items() if key not in swept}, name)


def _refuse_another(folder: Path, definition: Definition) -> None:
    if not (folder / SWEEP).exists():
        return
    before = _read(folder)
    old, new = ({**d.swept, **{k: v for k, v in d.fixed.items() if not _is_free(k)}} for d in (before, definition))
    key = next((key for key in {**old, **new} if old.get(key) != new.get(key)), None)
    order = list(before.swept) != list(definition.swept)
    if key is None and not order:
        return
    difference = f"{key}: {old.get(key)} there, {new.get(key)} here" if key else f"first {next(iter(before.swept))}"
    raise ConfigError(
        f"The sweep in {folder} is another one ({difference}), and the numbers of its jobs stand for its values. "
        f"Type what its {SWEEP} says, or choose another run_dir."
    )


def _read(folder: Path) -> Definition:
    values = OmegaConf.to_container(read_yaml(folder / SWEEP), resolve=False)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), dict) for key in ("swept", "fixed")):
        raise ConfigError(f"{folder / SWEEP} does not describe a sweep.")
    swept, fixed = ({str(k): str(v) for k, v in values[key].items()} for key in ("swept", "fixed"))
    return Definition(swept, fixed, values.get("study"))


def _write(folder: Path, definition: Definition) -> None:
    values = {"swept": dict(definition.swept), "fixed": dict(definition.fixed), "study": definition.study}
    replace_text(folder / SWEEP, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _is_free(override: str) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return key in FREE or key.startswith("logger.")


def _pin(config: DictConfig, key: str, value: str) -> None:
    """Fix a value of Hydra's for all jobs, which compose their config anew."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    with flag_override(config, ["readonly", "struct"], False):
        OmegaConf.update(config, key, value)
        config.hydra.overrides.hydra.append(f"{key}='{quoted}'")


def _command(arguments: Sequence[str], folder: Path) -> str:
    program = ["python", "train.py"] if arguments[0].endswith(".py") else ["vqgan", "train"]
    rest = [argument for argument in arguments[1:] if not argument.startswith("run_dir=")]
    return shlex.join([*program, *rest, f"run_dir={folder}"])
