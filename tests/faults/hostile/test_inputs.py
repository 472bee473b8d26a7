"""What the other tests here stand on: what is not spoilt is read, and what is spoilt is much."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.hostile.attempts import Attempt
from tests.faults.hostile.honest import a_run, an_export
from tests.faults.hostile.spoilt_runs import METRICS
from tests.faults.hostile.test_configs import DAMAGED, ELSEWHERE, TYPED
from tests.faults.hostile.test_descriptions import DESCRIPTIONS, SAFETENSORS
from tests.faults.hostile.test_import_taming import TAMING_CONFIGS
from tests.faults.hostile.test_manifests import MANIFESTS, TEXTS
from tests.faults.hostile.test_torch_files import HOSTILE
from tests.faults.hostile.torch_files import FILES, STRANGERS


def test_the_honest_run_and_export_are_read(attempted: Attempt, world: Path) -> None:
    run, export = a_run(world / "run"), an_export(world / "export")
    for source in (run, export):
        ended = attempted("load", source)
        assert (ended.code, ended.error) == (0, "")
    assert attempted("command", "export", run, "--out", world / "out", writes=True).code == 0
    assert attempted("load", world / "out").code == 0
    assert attempted("best", run / "checkpoints").code == 0


def test_the_hostile_inputs_are_many() -> None:
    groups: list[Mapping[str, Any]] = [
        FILES, STRANGERS, HOSTILE, MANIFESTS, TEXTS, METRICS, DESCRIPTIONS, SAFETENSORS, DAMAGED, ELSEWHERE, TYPED,
        TAMING_CONFIGS,
    ]  # fmt: skip
    assert sum(map(len, groups)) >= 300
