"""What a user can mend, in our words, whoever noticed it: Hydra, OmegaConf, the yaml parser, the system or we."""

from __future__ import annotations

import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vqgan.config.build import unknown_choice, unknown_key, unresolvable
from vqgan.config.keys import SECTIONS, TOP_LEVEL, by_full_key, of_kind
from vqgan.errors import ConfigError, DivergedError, StoppedError, StorageError, VQGANError
from vqgan.runtime.process import this_process
from vqgan.runtime.signals import STOP_SIGNALS
from vqgan.text import end_unread, without_secrets

USER_ERRORS = (VQGANError, HydraException, OmegaConfBaseException, yaml.YAMLError, OSError)
ALIKE = (ConfigError, DivergedError, StoppedError)  # which end all processes of a run in the same words
FIRST_SPEAKS = 10  # seconds that the others wait for the first to say it


def is_from_hydra(error: BaseException) -> bool:
    """Whether Hydra raised it, over a defaults list for example, and not our own code."""
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return str(innermost.f_globals.get("__name__")).startswith("hydra.")


def storage_error(error: BaseException) -> StorageError | None:
    """What to say where the storage of a search failed under way; None where something else did.

    Optuna is an extra, so its errors are known by the names of their modules.
    """
    if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna"):
        return None
    return StorageError(
        f"hydra.sweeper.storage failed: {str(error).splitlines()[0]}. All runs are saved; the same command, with "
        "the same run_dir, goes on."
    )


def end(error: BaseException, typed: Sequence[str]) -> NoReturn:
    """End the process, which was started by what was typed, with one paragraph and the promised exit code."""
    if isinstance(error, BrokenPipeError) and error.filename is None:
        end_unread()
    known = in_our_words(error, typed)
    process = this_process()
    if not process.is_first and isinstance(known, ALIKE):
        for name in STOP_SIGNALS:
            signal.signal(signal.Signals[name], signal.SIG_DFL)
        time.sleep(FIRST_SPEAKS)  # then torchrun ends this one
    said_by = "" if process.is_first else f"Process {process.rank} of {process.count}: "
    print(f"\n{said_by}{without_secrets(str(known), typed)}", file=sys.stderr)
    sys.exit(known.exit_code)


def in_our_words(error: BaseException, typed: Sequence[str] = ()) -> VQGANError:
    """One of `USER_ERRORS` as one paragraph with its exit code; it may quote what was typed."""
    if isinstance(error, VQGANError):
        return error
    cause = error.__cause__ if isinstance(error, HydraException) else error
    if isinstance(cause, VQGANError):
        return cause
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return _unknown(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return unknown_choice(*error.missing_cfg_file.rpartition("/")[::2], error.options, typed)
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"'{error.override}' cannot be read as key=value: {_one_line(str(error))}. A value with a space, comma or "
            "bracket in it needs quotes inside quotes: 'key=\"value\"'; so does a ~ among several values."
        )
    if isinstance(error, OmegaConfBaseException):
        return unresolvable(error)
    if isinstance(error, yaml.YAMLError):
        return ConfigError(f"A yaml file cannot be read: {_one_line(str(error))}.")
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return StorageError(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.")
    return _composition_error(error, typed)


def _composition_error(error: BaseException, typed: Sequence[str]) -> ConfigError:
    message = _one_line(str(error) or str(error.__cause__)).replace("\\'", "'")
    overrides = [argument for argument in typed if "=" in argument]
    unknown = re.fullmatch(r"Could not override '([\w/]+)'\. ?No match in the defaults list.*", message)
    if unknown:
        said = next((one for one in overrides if one.partition("=")[0] == unknown[1]), unknown[1])
        return ConfigError(f"{said}: there is no group '{unknown[1]}' here; --help names those that there are.")
    several = re.match(r"Ambiguous value for argument '([^']+)'", message)
    if several:
        return ConfigError(f"{several[1]} stands for several runs: add --multirun. A list needs brackets: [a,b].")
    if not any(override.partition("=")[0].lstrip("+~") in message for override in overrides):
        message += f" Typed: {' '.join(overrides)}."
    return ConfigError(message)


def _one_line(message: str) -> str:
    lines = [line.strip() for line in message.split("Config search path:")[0].splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("See https")).rstrip(".")


def _unknown(error: Any) -> ConfigError:
    parent = error.parent_node
    nested = "." in str(error.full_key) and parent is not None
    if nested:
        return unknown_key(str(error.full_key), parent)
    values: Any = {} if parent is None else OmegaConf.to_container(parent, resolve=False)
    full = [key for key, _ in by_full_key(values) if key.partition(".")[0] in SECTIONS]
    return unknown_key(str(error.full_key), (*of_kind(TOP_LEVEL, values), "experiment", "sweep"), full)
