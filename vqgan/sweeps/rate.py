"""A study of rate and distortion: how good each tokenizer is, what its tokens cost under a prior, and the plane."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from vqgan.config.build import build
from vqgan.config.command import command_config, quoted
from vqgan.config.user_errors import USER_ERRORS, in_our_words
from vqgan.config.versions import sweep_is_broken_off
from vqgan.errors import ConfigError, RunFolderInUseError, StoppedError, VQGANError
from vqgan.reports import rates
from vqgan.reports.trial import is_trial
from vqgan.runs.saved import runs_in, typed_for
from vqgan.runs.status import SETTLED, status_of
from vqgan.sweeps.sweep import Sweep, ending, read_jobs

TOKENS, PRIORS, CODECS = "tokens", "priors", "evaluation"  # folders beside the jobs'


class StageError(VQGANError):
    """A tokenizer is trained, and what was to be found out of it failed; ends as that would have."""

    def __init__(self, stage: str, error: VQGANError) -> None:
        super().__init__(f"{stage}: {error}")
        self.exit_code = error.exit_code


class Rate(Sweep):
    """The sweep's hook, which draws the plane in the end; its values say what becomes of each tokenizer.

    Args:
        evaluate: values for `vqgan evaluate`, as they are typed after it.
        encode: for `vqgan encode`, beside those by which frames are read as the tokenizer's evaluation reads them.
        prior: for `vqgan prior`, beside those of the tokenizer's run that mean the same: seed, device, split, loggers.
        codecs: to be measured on the first tokenizer's validation data, by their names; none where it is empty.
    """

    def __init__(
        self, evaluate: Sequence[str], encode: Sequence[str], prior: Sequence[str], codecs: Sequence[str]
    ) -> None:
        self.evaluate, self.encode, self.prior = map(list, (evaluate, encode, prior))
        self.codecs = [f"codec:{name}" for name in codecs]

    @classmethod
    def of(cls, hydra_config: DictConfig) -> Rate:
        """The same in the process of a job, which gets an empty one."""
        values: Any = OmegaConf.to_container(hydra_config.callbacks.sweep)
        return cls(**{key: value for key, value in values.items() if key != "_target_"})

    def follow(self, config: DictConfig, folder: Path) -> None:
        """Evaluate, encode and train a prior: what is done of it is not done again.

        Args:
            config: of the tokenizer's run.
            folder: of that run, which is finished.

        Raises:
            StoppedError: a signal came.
            StageError: one of these failed.
        """
        tokens, run = (folder.parent / kind / folder.name for kind in (TOKENS, PRIORS))
        with _stage("evaluate"):
            if not (folder / rates.EVALUATION).exists():
                self._evaluate([str(folder)], None, config.trainer.device)
        with _stage("encode"):
            roots = _encoded(config, tokens)
        typed = [*(f"data.{key}={quoted(str(to))}" for key, (_, to) in roots.items()), *_shared(config), *self.prior]
        status = status_of(run)
        if status is not None and status.state in SETTLED and typed_for(run) == typed:
            if status.state != "finished":
                raise StageError("prior", ConfigError(f"it {status.state} before. Try others of its values."))
            return
        with _stage("encode"):
            for root, out in roots.values():
                self._encode(config, folder, Path(root), out)
        with _stage("prior", typed):
            _train(typed, run, config.logger)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Measure the codecs and draw the plane, then what every sweep does."""
        if sweep_is_broken_off():
            return
        code: Any = 0
        try:
            with ending(sys.argv[1:]):
                self._draw(config)
        except SystemExit as ended:  # what the sweep has to say is said all the same
            code = ended.code
        try:
            super().on_multirun_end(config)
        except SystemExit as ended:
            sys.exit(ended.code or code)

    def _draw(self, config: DictConfig) -> None:
        finished = [job.folder for job in read_jobs(self.folder) if job.status.state == "finished"]
        page = self.folder / CODECS / "evaluation.html"  # is written last
        if finished and self.codecs and not page.exists():
            try:
                self._evaluate([str(finished[0]), *self.codecs], page.parent, config.trainer.device)
            except BaseException:
                page.unlink(missing_ok=True)
                raise
        plane = rates.points(runs_in(self.folder, is_trial), [self.folder]) if finished else []
        if plane:
            print(f"\nRate and distortion\n{rates.as_text(plane)}\n\n{rates.write(plane, self.folder)}")

    def _evaluate(self, sources: Sequence[str], out: Path | None, device: str) -> None:
        from vqgan.evaluation.evaluate import evaluate  # here, so that settled jobs need not wait for torch

        evaluate(sources, None, out, None, [f"device={device}", *self.evaluate])

    def _encode(self, config: DictConfig, run: Path, root: Path, out: Path) -> None:
        from vqgan.tokenizer.encode_folder import FolderEncoder
        from vqgan.tokenizer.tokenizer import load

        data = config.data
        when = f"stride={data.stride}" if data.fps is None else f"fps={data.fps}"
        index = "null" if data.index is None else quoted(str(data.index))
        read = [f"resolution={data.resolution}", "square=true", when, f"workers={data.workers}", f"index={index}"]
        encoding = build(command_config("encode", [*read, f"device={config.trainer.device}", *self.encode]), "")
        print(f"{FolderEncoder(load(str(run)), encoding, root, out).run()}: {out}", flush=True)


@contextlib.contextmanager
def _stage(name: str, typed: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except (StoppedError, RunFolderInUseError):
        raise
    except USER_ERRORS as error:
        raise StageError(name, in_our_words(error, typed)) from error


def _encoded(config: DictConfig, tokens: Path) -> dict[str, tuple[str, Path]]:
    """Folders of videos, by the key that they have in training, each with that of its tokens.

    Raises:
        ConfigError: the data are no videos.
    """
    from vqgan.data.videos import Videos

    data = build(config.data, "data")
    if not isinstance(data, Videos):
        raise ConfigError(f"a prior's tokens are of videos in a folder, data=videos, and not of {type(data).__name__}.")
    found = {"root": (data.root, tokens)}
    if data.val_root is not None:
        found["val_root"] = data.val_root, tokens.with_name(f"{tokens.name}-validation")
    return found


def _shared(config: DictConfig) -> list[str]:
    """What a prior has of its tokenizer's run."""
    return [
        f"data.val_fraction={config.data.val_fraction}",
        f"seed={config.seed}",
        f"trainer.device={config.trainer.device}",
    ]


def _train(typed: Sequence[str], folder: Path, logger: DictConfig) -> None:
    from vqgan.prior import run

    config = compose("prior", [*typed, f"run_dir={quoted(str(folder))}"])  # by the Hydra that has composed the job
    config.logger = logger
    print(flush=True)
    run.run(config, typed)
