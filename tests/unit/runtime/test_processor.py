"""Memory format and precision follow what the processor can do."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from tests.conftest import Compose
from vqgan.errors import ConfigError
from vqgan.runtime import processor
from vqgan.runtime.processor import choices, lays_channels_last, multiplies_bf16
from vqgan.training.wiring import make_trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def on_a(monkeypatch: pytest.MonkeyPatch, vectors: str, *has: str) -> None:
    """Stand in for a CPU whose torch uses these vectors, with these capabilities."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    able = MappingProxyType(dict.fromkeys(has, True) | {"cpu_name": "A CPU"})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)


@pytest.mark.parametrize(("vectors", "fast"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_channels_are_innermost_where_that_is_faster(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: str, fast: bool
) -> None:
    on_a(monkeypatch, vectors)
    (tmp_path / "run").mkdir()
    trainer = make_trainer(composed(), tmp_path / "run")
    weight = trainer.autoencoder.last_layer
    assert weight.is_contiguous(memory_format=torch.channels_last) is fast
    assert weight.is_contiguous() is not fast
    assert lays_channels_last("auto", GPU)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_asked_for_holds_on_every_processor(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    for vectors in ("AVX512", "AVX2"):
        on_a(monkeypatch, vectors)
        assert lays_channels_last(wanted, CPU) is wanted


@pytest.mark.parametrize(
    ("has", "able"),
    [("avx512_bf16", True), ("amx_bf16", True), ("bf16", True), ("avx512_f", False), ("fp16_arith", False)],
)
def test_products_of_bf16_are_asked_of_the_processor(monkeypatch: pytest.MonkeyPatch, has: str, able: bool) -> None:
    on_a(monkeypatch, "AVX2", has)
    assert multiplies_bf16(CPU) is able
    assert multiplies_bf16(GPU)


def test_bf16_that_would_be_emulated_is_refused_unless_insisted_on(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a(monkeypatch, "AVX2", "avx2")
    (tmp_path / "run").mkdir()
    refused = composed("trainer.precision=bf16", "trainer.allow_slow_precision=false")
    with pytest.raises(ConfigError, match=r"trainer\.precision must be fp32: this CPU .*, but is 'bf16'\."):
        make_trainer(refused, tmp_path / "run")
    trainer = make_trainer(composed("trainer.precision=bf16", "trainer.allow_slow_precision=true"), tmp_path / "run")
    assert trainer.settings.precision == "bf16"


def test_one_line_says_what_was_chosen_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a(monkeypatch, "AVX2", "avx2")
    assert choices("auto", "fp32", CPU) == "channels first, since this CPU has AVX2; fp32"
    assert choices(True, "bf16", CPU) == "channels last, as asked; bf16, as insisted on: this CPU emulates it"
    assert choices("auto", "bf16", GPU) == "channels last, since it is a GPU; bf16"


def test_an_older_torch_is_asked_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for vectors, tiles in [(True, False), (False, True), (False, False)]:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=vectors: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=tiles: has)
        assert processor.multiplies_bf16(CPU) is (vectors or tiles)
