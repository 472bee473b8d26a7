"""MLflow."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vqgan.config.keys import NOT_SHOWN
from vqgan.errors import StoppedError, exit_code_of, missing_extra
from vqgan.loggers.best import Best
from vqgan.loggers.logger import Advice, Logger
from vqgan.runs.criterion import criterion_in
from vqgan.runs.metrics import HOURS
from vqgan.runs.provenance import not_neutral
from vqgan.runs.saved import typed_for
from vqgan.text import PROGRAM, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCAL = ("sqlite:", "file:")  # of addresses that lead to no other machine
MOST_PARAMETERS, LONGEST = 100, 6000  # at once, and characters: more is refused
HIDDEN = {*(key.rpartition(".")[2] for key in NOT_SHOWN), "data_fingerprint"}
QUIET = {  # what the package reads: it is to tell nobody that it is used, and not to wait for a server for minutes
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}  # fmt: skip


class MLflow(Logger):
    """An MLflow run per training run, with the panels of the other loggers; a resumed run goes on in the same one.

    If the store fails, training goes on, a warning says so once, and `metrics.jsonl` has every row.

    Args:
        folder: the run folder.
        config: the run's values; those that results depend on become parameters.
        private: nothing of the data goes to another machine: no pictures, names or paths.
        uri: of the tracking store.
        experiment: in which the run is.

    Raises:
        ConfigError: the package mlflow is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], private: bool, uri: str, experiment: str) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow  # noqa: F401
        except ImportError:
            raise missing_extra("logger=mlflow", "mlflow") from None
        self.run, self.config, self.uri = folder, config, uri
        self.hides = private and not uri.startswith(LOCAL)
        self.experiment = "private" if self.hides else experiment
        self.best = Best(criterion_in(config))
        self.id: str | None = None  # of MLflow's run
        self.client: MlflowClient | None = None
        self.hours, self.began, self.until = 0.0, 0.0, -1
        self.lost = False

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Write one step's scalars, pictures and clips, unless an earlier part of the run has."""
        self.hours = scalars.get(HOURS, 0.0)
        best = {f"best/{name.rpartition('/')[2]}": value for name, value in self.best.look(step, scalars).items()}

        def write(client: MlflowClient, run: str) -> None:
            from mlflow.entities import Metric

            if step <= self.until:
                return
            now = round(1000 * (self.began + 3600 * self.hours))
            metrics = [Metric(name, value, now, step) for name, value in {**scalars, **best}.items()]
            client.log_batch(run, metrics=metrics)
            for name, file in ({} if self.hides else files).items():
                if file.suffix == ".mp4":
                    client.log_artifact(run, str(file), name)
                else:
                    with Image.open(file) as picture:
                        client.log_image(run, picture.convert("RGB"), key=name, step=step)

        self._tell(write)

    def advise(self, advice: Advice) -> None:
        """Keep it as a tag."""
        self._tell(
            lambda client, run: client.set_tag(run, f"advice.{advice.name}", f"step {advice.step}: {advice.text}")
        )

    def state_dict(self) -> dict[str, Any]:
        """Which run it is, and its best values."""
        return {"id": self.id, "best": self.best.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.id = state.get("id")
        self.best.load_state_dict(state.get("best", {}))

    def close(self, error: BaseException | None = None) -> None:
        """Say how the run ended; one that was stopped goes on."""
        if self.client is None:
            return
        status = "KILLED" if isinstance(error, StoppedError) else "FAILED" if exit_code_of(error) else "FINISHED"
        said = (
            "Finished." if error is None else without_secrets(str(error), typed_for(self.run)) or type(error).__name__
        )
        if not self.hides:
            self._tell(lambda client, run: client.set_tag(run, "end", said))
        self._tell(lambda client, run: client.set_terminated(run, status))

    def summary(self) -> tuple[str, str] | None:
        """How to look at it."""
        local = self.uri.startswith(LOCAL)
        return "MLflow", f"mlflow ui --backend-store-uri {self.uri}" if local else f"{self.uri}, run {self.id}"

    def _tell(self, write: Callable[[MlflowClient, str], None]) -> None:
        """Write something, unless the store has failed before."""
        if self.lost:
            return
        try:
            if self.client is None:
                self._open()
            assert self.client is not None
            assert self.id is not None
            write(self.client, self.id)
        except Exception as error:  # the package's own, a data base's, a network's
            self.lost = True
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            warnings.warn(
                f"logger.mlflow.uri={self.uri} cannot be used ({reason}): nothing more is written there. metrics.jsonl "
                "has every row.",
                stacklevel=3,
            )

    def _open(self) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self.uri)
        if self.id is not None:
            try:
                run = client.get_run(self.id)
                client.update_run(self.id, status="RUNNING")
                self.began = run.info.start_time / 1000
                self.until = max((m.step for m in client.get_metric_history(self.id, HOURS)), default=-1)
                self.client = client
                return
            except MlflowException:  # the store is another one, or the run was deleted
                self.id = None
        found = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if found is None else found.experiment_id
        self.began = time.time() - 3600 * self.hours
        run = client.create_run(
            experiment, start_time=round(1000 * self.began), run_name="private" if self.hides else self.run.name
        )
        self.id, self.client = run.info.run_id, client
        if not self.hides:
            client.set_tag(self.id, "command", f"{PROGRAM} {' '.join(typed_for(self.run))}")
        self._describe(client, self.id)

    def _describe(self, client: MlflowClient, run: str) -> None:
        from mlflow.entities import Param

        values = {key: str(value) for key, value in not_neutral(self.config).items()}
        if self.hides:
            values = {key: value for key, value in values.items() if key.rpartition(".")[2] not in HIDDEN}
            values = {key: "private" if os.sep in value else value for key, value in values.items()}
        parameters = [Param(key, value[:LONGEST]) for key, value in values.items()]
        for first in range(0, len(parameters), MOST_PARAMETERS):
            client.log_batch(run, params=parameters[first : first + MOST_PARAMETERS])
