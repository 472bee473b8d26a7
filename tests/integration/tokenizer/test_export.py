"""What `vqgan export` writes, as other programs read it."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import vqgan
from tests.conftest import small_config
from vqgan.config.build import build
from vqgan.discriminators import PatchGAN
from vqgan.errors import ConfigError
from vqgan.tokenizer.export import export
from vqgan.tokenizer.exporting.graphs import Run, compare
from vqgan.tokenizer.folder import description_of, part_in, write
from vqgan.tokenizer.tokenizer import Tokenizer

COMMAND = importlib.import_module("vqgan.commands.export")
GROUPS_OF_32 = ("backbone.channels=32", "backbone.norm_groups=32")


def tokenizer_of(folder: Path, *overrides: str) -> Tokenizer:
    """A tokenizer with random weights, in a folder as `vqgan export` and `import` write it."""
    config = small_config(folder, *overrides)
    torch.manual_seed(0)
    description = description_of(part_in(config, "backbone"), part_in(config, "model.quantizer"))
    parts = build(config.backbone, "backbone"), build(config.model.quantizer, "model.quantizer")
    tokenizer = Tokenizer(*parts, description).eval().requires_grad_(False)
    for name, parameter in tokenizer.named_parameters():
        if not parameter.any() or name == "quantizer.codebook":  # else blocks would do nothing, and codes be alike
            torch.nn.init.normal_(parameter, std=0.3)
    critic = PatchGAN(3, 8, 2, "batch").state_dict()
    write(folder, description, tokenizer.state_dict(), critic, "")
    return tokenizer


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def assert_alike(codes: tuple[Tensor, Tensor], frames: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(*codes)
    assert len(codes[0].unique()) > 2, "else nothing is shown"
    torch.testing.assert_close(*frames, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", ["vqmodel", "emavq", "cosine", "lfq", "simvq"])
def test_diffusers_own_model_gives_our_codes_and_pictures(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # not needed, and of another build than torch here and there
    diffusers = pytest.importorskip("diffusers")
    ours = tokenizer_of(tmp_path / "a", f"model={model}", "backbone.attention_resolutions=[16]")
    export(tmp_path / "a", tmp_path / "b", "diffusers")
    theirs = diffusers.VQModel.from_pretrained(tmp_path / "b").eval()
    frames = noise(2, 3, 24, 32)
    with torch.no_grad():
        latents = theirs.encode(frames).latents
        indices = theirs.quantize(latents)[2][2].view(2, 6, 8)
        assert_alike((ours.encode(frames), indices), (ours(frames).reconstruction, theirs.decode(latents).sample))


def test_what_is_exported_to_diffusers_is_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tokenizer_of(tmp_path / "a", "model=vqmodel")
    export(tmp_path / "a", tmp_path / "b", "diffusers")
    command("vqgan.commands.import_", monkeypatch, "diffusers-vq", tmp_path / "b", "--out", tmp_path / "c")
    back = vqgan.load(tmp_path / "c").state_dict()
    weights = {name: tensor for name, tensor in ours.state_dict().items() if tensor.is_floating_point()}
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("model", ["vqmodel", "emavq", "cosine_ema", "wasserstein"])
def test_the_references_files_are_read_back(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tokenizer_of(tmp_path / "a", f"model={model}", *GROUPS_OF_32)
    export(tmp_path / "a", tmp_path / "b", "taming")
    config = yaml.safe_load((tmp_path / "b" / "model.yaml").read_text())["model"]
    assert config["target"] == f"taming.models.vqgan.{'EMAVQ' if model == 'emavq' else 'VQModel'}"
    assert config["params"]["lossconfig"]["params"]["disc_ndf"] == 8
    typed = [tmp_path / "b" / "model.ckpt", "--config", tmp_path / "b" / "model.yaml", "--out", tmp_path / "c"]
    command("vqgan.commands.import_taming", monkeypatch, *typed)
    back, frames = vqgan.load(tmp_path / "c"), noise(1, 3, 16, 16)
    assert_alike((ours.encode(frames), back.encode(frames)), (ours(frames).reconstruction, back(frames).reconstruction))
    assert (tmp_path / "c" / "discriminator.safetensors").exists()


@pytest.mark.parametrize(
    ("layout", "overrides", "reason"),
    [
        ("diffusers", ("backbone=small",), "no such network as Shortcut"),
        ("taming", ("backbone=small",), "no such network as Shortcut"),
        ("taming", (), "32 groups"),
        ("diffusers", ("backbone=causal_tiny",), "no such network as Causal"),
        ("diffusers", ("model=residual",), "codes a position"),
        ("diffusers", ("model=fsq",), "nearest code of a table"),
        ("taming", ("model=ibq", *GROUPS_OF_32), "nearest code of a table"),
        ("torch", ("backbone=vidtok", "backbone.channels=32", "backbone.resolution=64"), "whole clips alone"),
    ],
)
def test_what_a_format_cannot_carry_is_refused(
    layout: str, overrides: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    tokenizer_of(tmp_path / "a", *overrides)
    with pytest.raises(ConfigError, match=reason):
        export(tmp_path / "a", tmp_path / "b", layout)
    assert not (tmp_path / "b").exists()


def test_missing_packages_are_named_with_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer_of(tmp_path / "a")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'".\[onnx\]"'):
        export(tmp_path / "a", tmp_path / "b", "onnx")
    assert not (tmp_path / "b").exists()


def command(module: str, monkeypatch: pytest.MonkeyPatch, *typed: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["vqgan", *map(str, typed)])
    importlib.import_module(module).main()


PICTURES = ("model=vqmodel",), ("model=ibq", "backbone=small", "backbone.channels=8", "backbone.decoder_channels=8")
FEW = ("backbone.channel_multipliers=[1,1]", "backbone.temporal_resolutions=[8]", "backbone.temporal_downsampling=2")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", PICTURES)
def test_graphs_of_pictures_run_without_us(overrides: tuple[str, ...], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    ours = tokenizer_of(tmp_path / "a", *overrides)
    side = ours.downsampling.height
    for layout in ("torch", "onnx"):
        said = export(tmp_path / "a", tmp_path / layout, layout)
        assert "0 of 344 codes differ" in said
        assert f"frames of {min(344, ours.quantizer.codebook_size)} of its codes by " in said
    parts = {path.stem: torch.export.load(path).module() for path in (tmp_path / "torch").glob("*.pt2")}
    sessions = {path.stem: onnxruntime.InferenceSession(path) for path in (tmp_path / "onnx").glob("*.onnx")}
    for batch, rows, columns in ((1, 2, 6), (3, 7, 2)):
        frames = noise(batch, 3, rows * side, columns * side)
        codes = ours.encode(frames)
        made, latents = ours.decode(codes), ours.quantizer.lookup(codes)
        assert_alike((codes, parts["encoder"](frames)), (made, parts["decoder"](codes)))
        torch.testing.assert_close(parts["codes"](codes), latents)
        given = {"encoder": ("frames", frames), "decoder": ("indices", codes), "codes": ("indices", codes)}
        found = [sessions[name].run(None, {taken: x.numpy()})[0] for name, (taken, x) in given.items()]
        assert_alike((codes, torch.from_numpy(found[0])), (made, torch.from_numpy(found[1])))
        np.testing.assert_allclose(found[2], latents)


def test_one_wrong_code_is_found(tmp_path: Path) -> None:
    ours = tokenizer_of(tmp_path / "a", "model=vqmodel", "model.quantizer.codebook_size=256")
    wrong = ours.quantizer.codebook_size - 1

    def run(name: str, broken: str = "") -> Run:
        def call(values: Tensor, *_: Tensor) -> list[Tensor]:
            made = {"encoder": ours.encode, "decoder": ours.decode, "codes": ours.quantizer.lookup}[name](values)
            if name != broken:
                return [made]
            return [made + 1e-3 * float((values == wrong).any()) if name != "encoder" else (made + 1) % (wrong + 1)]

        return call

    said = compare(ours, run)
    assert said.startswith("Compared at sizes that they were not traced with: 0 of 344 codes differ")
    assert f"frames of {wrong + 1} of its codes by 0 at most" in said
    for broken in ("encoder", "decoder", "codes"):
        with pytest.raises(ConfigError, match="The exported graphs are not the tokenizer"):
            compare(ours, functools.partial(run, broken=broken))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["torch", "onnx"])
def test_graphs_of_clips_are_a_stream(layout: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime") if layout == "onnx" else None
    ours = tokenizer_of(tmp_path / "a", "backbone=causal_tiny", *FEW)
    export(tmp_path / "a", tmp_path / "b", layout)

    def run(name: str, values: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if onnxruntime is None:
            module = torch.export.load(tmp_path / "b" / f"{name}.pt2").module()
            made, after = module(values, state) if state else module(values)
            return made, after
        session = onnxruntime.InferenceSession(tmp_path / "b" / f"{name}.onnx")
        names = [taken.name for taken in session.get_inputs()]
        made, *after = session.run(None, dict(zip(names, (value.numpy() for value in (values, *state)))))
        return torch.from_numpy(made), [torch.from_numpy(value) for value in after]

    def stream(name: str, values: Tensor, lengths: list[int]) -> Tensor:
        found, state = [], []
        for number, part in enumerate(values.split(lengths, 1)):
            made, state = run(f"{name}_{'next' if number else 'first'}", part, state)
            found.append(made)
        return torch.cat(found, 1)

    frames = noise(1, 9, 3, 6, 10)  # three parts: 1, 2 and 6 frames
    codes = ours.encode(frames)
    assert_alike(
        (codes, stream("encoder", frames, [1, 2, 6])), (ours.decode(codes), stream("decoder", codes, [1, 3, 1]))
    )


def test_the_command_writes_a_card_with_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tokenizer_of(tmp_path / "a", "model=vqmodel")
    figures = {"psnr": {"value": 27.125, "low": 26.0, "high": 28.0}, "rfid": {"value": None, "low": None, "high": None}}
    data = {"root": "secret", "frames": 96, "videos": 8, "split": "validation", "resolution": 16}
    report = {"metrics": figures, "protocol": {"tokenizer": {"sha256": ours.sha256()}, "data": data}}
    (tmp_path / "a" / "evaluation.json").write_text(json.dumps(report))
    (tmp_path / "a" / "reconstructions.png").write_bytes(b"a picture")
    typed = [tmp_path / "a", "--out", tmp_path / "shared", "--format", "diffusers"]
    command("vqgan.commands.export", monkeypatch, *typed)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "| psnr | 27.12 | [26, 28] |" in card
    assert "96 frames of 8 files (validation, 16 pixels)" in card
    assert 'VQModel.from_pretrained("shared")' in card
    assert "library_name: diffusers" in card
    assert "](reconstructions.png)" in card
    assert (tmp_path / "shared" / "reconstructions.png").read_bytes() == b"a picture"
    assert not any(word in card for word in ("rfid", "secret", str(tmp_path)))
    report["protocol"]["tokenizer"]["sha256"] = "of another"
    (tmp_path / "a" / "evaluation.json").write_text(json.dumps(report))
    command("vqgan.commands.export", monkeypatch, *typed)
    assert "27.12" not in (tmp_path / "shared" / "README.md").read_text()
    assert str(tmp_path / "shared") in capsys.readouterr().out
