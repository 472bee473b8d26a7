"""A golden curve of our own: no change moves the numbers of training unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.support.parts import PLAIN
from vqgan.config.build import conf_dir
from vqgan.data import ClipDataset, SyntheticVideos
from vqgan.data.synthetic import draw_video
from vqgan.training.wiring import make_trainer

CURVE = Path(__file__).parent.parent / "golden" / "curve.txt"
# Each with its relative tolerance: about twice what other instruction sets (SSE, AVX2, AVX-512) moved it by.
TOLERANCES = {
    "train/total": 4e-3,
    "train/quantization": 2e-2,
    "codebook/perplexity": 1e-2,
    "adversarial/weight": 0.15,
    "train/discriminator": 1e-2,
}
VALUES = (
    *PLAIN, "logger=none", "seed=0", "trainer.device=cpu", "data.workers=0", "data.validation_clips=1",
    "data.batch_size=4", "loss.discriminator_start=12", "model.quantizer.start_from_data=false",
)  # fmt: skip


class Drawn(ClipDataset):
    """The demo's videos as they are drawn, before any codec."""

    def __init__(self) -> None:
        self.videos = [torch.from_numpy(draw_video(seed, 8, 64)) for seed in range(8)]

    def __len__(self) -> int:
        return 64

    def path(self, index: int) -> Path:
        return Path(str(index))

    def read(self, index: int, rng: object) -> torch.Tensor:
        return self.videos[index % 8][index // 8][None]


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Accumulator depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:data.root=.* has a single video:UserWarning")  # it validates on what it trains on
@pytest.mark.usefixtures("_one_thread")
def test_thirty_steps_of_the_tiny_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regenerate on purpose only, with a line in CHANGELOG.md: delete the file and run this test twice."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*VALUES, f"run_dir={tmp_path}"])
    monkeypatch.setattr(SyntheticVideos, "datasets", lambda *_: (Drawn(), Drawn()))
    trainer = make_trainer(config, tmp_path)
    batches = trainer.loader.batches(0)
    rows = [trainer.step(step, [next(batches)]).metrics for step in range(30)]
    lines = [" ".join(f"{float(row[name]):.6g}" if name in row else "-" for name in TOLERANCES) for row in rows]
    if not CURVE.exists():
        CURVE.write_text("\n".join(["# " + " ".join(TOLERANCES), *lines]) + "\n")
        pytest.fail(f"{CURVE} was missing and has been written")
    expected = CURVE.read_text().splitlines()[1:]
    for step, (line, golden) in enumerate(zip(lines, expected, strict=True)):
        for (name, relative), a, b in zip(TOLERANCES.items(), line.split(), golden.split(), strict=True):
            assert a == b == "-" or float(a) == pytest.approx(float(b), rel=relative), f"step {step}: {name}"
