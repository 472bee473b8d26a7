"""Roads in and out: the reference's state dicts, exported folders, and the same reconstruction on both sides."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vqgan
from tests.conftest import Compose
from tests.numerics.reference import FOLDER, filled
from vqgan.commands import import_taming
from vqgan.errors import CheckpointError, ConfigError
from vqgan.runs.checkpoint import Checkpoints
from vqgan.tokenizer import export
from vqgan.tokenizer.folder import write
from vqgan.tokenizer.taming import to_taming, translate
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

FILES = sorted(f for f in FOLDER.glob("*.json") if "config" in json.loads(f.read_text()))


class Reference:
    """A state dict as the reference would save it, its `model.params`, and its numbers."""

    def __init__(self, file: Path) -> None:
        described = json.loads(file.read_text())
        shapes = described["state_shapes"]
        self.state: dict[str, Tensor] = {k: filled(k, s) for k, s in shapes.items()}
        for name in shapes:
            if name.endswith("cluster_size"):
                self.state[name] = torch.ones(shapes[name])
            elif name.endswith("embed_avg"):
                self.state[name] = self.state["quantize.embedding.weight"].clone()
        self.state["loss.perceptual_loss.scaling_layer.shift"] = torch.zeros(1, 3, 1, 1)
        config = described["config"]
        self.params: dict[str, Any] = {
            "ddconfig": {**config["ddconfig"], "double_z": False},
            "n_embed": config["n_embed"],
            "embed_dim": config["embed_dim"],
            "variant": config["variant"],
            "lossconfig": {"target": "taming.VQLPIPSWithDiscriminator", "params": config["loss"]},
        }
        with np.load(file.with_suffix(".npz")) as arrays:
            self.frames = torch.from_numpy(arrays["eval/input"])
            self.indices = torch.from_numpy(arrays["eval/indices"]).long()
            self.reconstruction = torch.from_numpy(arrays["eval/reconstruction"])


@pytest.fixture(params=FILES, ids=lambda f: f.stem)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@torch.no_grad()
def test_an_imported_checkpoint_gives_the_references_numbers(reference: Reference) -> None:
    network = vqgan.import_taming(reference.state, reference.params)
    output = network(reference.frames)
    assert torch.equal(output.indices, reference.indices)
    scale = float(reference.reconstruction.abs().max())
    torch.testing.assert_close(output.reconstruction, reference.reconstruction, rtol=0, atol=1e-4 * scale)


def test_a_first_stage_of_latent_diffusion_is_found(reference: Reference) -> None:
    whole = {f"first_stage_model.{k}": v for k, v in reference.state.items()}
    whole |= {"model.diffusion_model.weight": torch.zeros(3), "first_stage_model.loss.logvar": torch.zeros(())}
    network = vqgan.import_taming(whole, reference.params)
    assert torch.equal(network.encode(reference.frames), reference.indices)


def test_there_and_back_is_the_same_state_dict(reference: Reference) -> None:
    imported = translate(reference.state, reference.params)
    back = to_taming(imported.autoencoder.state_dict(), imported.discriminator)
    expected = {k: v for k, v in reference.state.items() if not k.startswith("loss.perceptual_loss.")}
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[k], expected[k]) for k in expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("encoder.conv_in.bias"), "encoder.conv_in.bias"),
        (lambda s: s.update({"encoder.extra": torch.zeros(1)}), "encoder.extra"),
        (lambda s: s.update({"loss.strange": torch.zeros(1)}), "loss.strange"),
        (lambda s: s.update({"decoder.conv_out.bias": torch.zeros(7)}), "decoder.conv_out.bias"),
    ],
    ids=["missing", "unknown", "unknown loss", "shape"],
)
def test_tensors_that_do_not_fit_are_named(reference: Reference, change: Any, named: str) -> None:
    change(reference.state)
    with pytest.raises(CheckpointError, match=named):
        vqgan.import_taming(reference.state, reference.params)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"variant": "GumbelVQ"}, "GumbelVQ"),
        ({"ddconfig": {}}, "ddconfig"),
        ({"n_embed": None}, "n_embed"),
    ],
)
def test_configs_that_cannot_be_honoured_are_named(reference: Reference, change: dict[str, Any], named: str) -> None:
    params = {k: v for k, v in {**reference.params, **change}.items() if v is not None}
    with pytest.raises(ConfigError, match=named):
        vqgan.import_taming(reference.state, params)


def test_sizes_out_of_range_are_named_as_the_reference_names_them(reference: Reference) -> None:
    reference.params["ddconfig"]["ch"] = -1
    with pytest.raises(ConfigError, match=r"ddconfig\.ch "):
        vqgan.import_taming(reference.state, reference.params)


def call(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["vqgan", *map(str, arguments)])
    module.main()


def test_the_command_and_further_training(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: Compose
) -> None:
    if reference.params["ddconfig"]["in_channels"] != 3:
        pytest.skip("videos have three channels")
    checkpoint, config, out = tmp_path / "last.ckpt", tmp_path / "model.yaml", tmp_path / "tokenizer"
    torch.save({"state_dict": reference.state, "global_step": 7}, checkpoint)
    params = {k: v for k, v in reference.params.items() if k != "variant"}
    target = f"taming.models.vqgan.{reference.params['variant']}"
    config.write_text(json.dumps({"model": {"target": target, "params": params}}))
    call(import_taming, monkeypatch, checkpoint, "--config", config, "--out", out)
    assert torch.equal(vqgan.load(out).encode(reference.frames), reference.indices)
    card = (out / "README.md").read_text()
    assert 'vqgan.load("tokenizer")' in card
    assert "init_from=tokenizer " in card
    assert str(tmp_path) not in card, "the folder is there to be shared"
    imported = translate(reference.state, reference.params)
    overrides = import_taming.overrides_for(imported.description, imported.loss)
    small = [
        "loss=no_perceptual",
        "trainer=short",
        "trainer.steps=1",
        "loss.discriminator_start=0",
        "data.batch_size=1",
    ]
    trainer = run(composed(*overrides, *small, f"init_from={out}", "optimizer.lr=0.0", "trainer.discriminator_every=3"))
    assert torch.equal(trainer.autoencoder.encoder.conv_in.weight, reference.state["encoder.conv_in.weight"])
    assert trainer.discriminator is not None
    name = "loss.discriminator.main.0.weight"
    assert torch.equal(trainer.discriminator.state_dict()["main.0.weight"], reference.state[name])


def test_a_checkpoint_that_would_run_code_is_refused(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": reference.state, "callbacks": Payload()}, tmp_path / "last.ckpt")
    (tmp_path / "model.yaml").write_text(json.dumps(reference.params))
    with pytest.raises(CheckpointError, match="plain data") as error:
        call(import_taming, monkeypatch, tmp_path / "last.ckpt", "--config", tmp_path / "model.yaml", "--out", tmp_path)
    assert error.value.exit_code == 7
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def trained(composed: Compose, tmp_path: Path) -> Path:
    """A run folder."""
    run(composed("model=vqmodel", "loss.discriminator_start=1", "trainer.checkpoint_every=1"))
    return tmp_path / "run"


def test_an_export_reconstructs_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    export.export(trained, tmp_path / "out", "safetensors")
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        a, b = (vqgan.load(source)(frames) for source in (trained, tmp_path / "out"))
    assert torch.equal(a.reconstruction, b.reconstruction)
    assert torch.equal(a.indices, b.indices)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "psnr" in card
    assert "vqgan.load" in card
    assert str(tmp_path) not in card, "where it was trained is nobody's business"
    assert "codebook_size: 16" in card


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.parametrize(
    ("layout", "writer"),
    [
        ("safetensors", "vqgan.tokenizer.folder.save_file"),
        ("taming", "vqgan.tokenizer.exporting.formats.taming.torch.save"),
    ],
)
def test_an_export_that_is_cut_leaves_the_one_before_as_it_was(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, writer: str
) -> None:
    def cut(_: Any, file: Path) -> None:
        file.write_bytes(b"trunc")
        raise Killed

    run(composed("backbone.channels=32", "backbone.norm_groups=32", "loss.discriminator_start=1"))
    export.export(tmp_path / "run", tmp_path / "out", layout)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(writer, cut)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(Killed):
            export.export(tmp_path / "run", tmp_path / "out", layout)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    export.export(tmp_path / "run", tmp_path / "out", layout)
    assert {file.name for file in (tmp_path / "out").iterdir()} == before.keys()


def test_no_discriminator_stays_of_a_tokenizer_that_was_there_before(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export.export(trained, out, "safetensors")
    assert (out / "discriminator.safetensors").exists()
    tokenizer = vqgan.load(trained)
    write(out, tokenizer.description, tokenizer.state_dict(), None, "")
    assert not (out / "discriminator.safetensors").exists()


def test_a_model_card_has_its_figures_though_a_row_is_torn(trained: Path, tmp_path: Path) -> None:
    file = trained / "metrics.jsonl"
    file.write_text('{"step": 1, "time": 17' + "\n" + file.read_text() + '{"st')
    export.export(trained, tmp_path / "out", "safetensors")
    assert "| psnr | " in (tmp_path / "out" / "README.md").read_text()


def test_a_model_card_does_not_say_where_weights_lie(trained: Path, tmp_path: Path) -> None:
    config = (trained / "config.yaml").read_text()
    assert config.count("    weights: null") == 1
    private = f"    weights: {tmp_path}/vgg16.pth\n    weighty: kept"
    (trained / "config.yaml").write_text(config.replace("    weights: null", private))
    recipe = export.recipe_in(trained)
    assert str(tmp_path) not in recipe
    assert "weighty: kept" in recipe


def test_reconstruction_is_decode_of_encode_bit_for_bit(trained: Path) -> None:
    tokenizer = vqgan.load(trained)
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(tokenizer.decode(tokenizer.encode(frames)), tokenizer(frames).reconstruction)


def test_export_for_the_reference(composed: Compose, tmp_path: Path) -> None:
    run(composed("backbone.channels=32", "backbone.norm_groups=32"))
    export.export(tmp_path / "run", tmp_path / "out", "taming")
    state = torch.load(tmp_path / "out" / "model.ckpt", weights_only=True)["state_dict"]
    params = json.loads((tmp_path / "out" / "model.json").read_text())
    network = vqgan.import_taming(state, {**params, "variant": "EMAVQ"})
    frames = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(network.encode(frames), vqgan.load(tmp_path / "run").encode(frames))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(format=99),
        lambda d: d["quantizer"].update({"class": "os.system"}),
        lambda d: d["quantizer"].update({"class": "Quantizer"}),
        lambda d: d["quantizer"].update(codebook_size=10**12),
        lambda d: d["backbone"].update(channels=2**20),
        lambda d: d["backbone"].update(surprise=1),
        lambda d: d.pop("backbone"),
    ],
    ids=["format", "class", "abstract", "codes", "channels", "unknown", "missing"],
)
def test_a_false_description_is_refused(trained: Path, tmp_path: Path, change: Any) -> None:
    out = tmp_path / "out"
    export.export(trained, out, "safetensors")
    description = json.loads((out / "config.json").read_text())
    change(description)
    (out / "config.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"does not fit|not of this package"):
        vqgan.load(out)


def test_what_is_no_tokenizer_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run nor an exported tokenizer"):
        vqgan.load(tmp_path)
    write(tmp_path, {"format": 1}, {"a": torch.zeros(1)}, None, "")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError):
        vqgan.load(tmp_path)


def test_the_import_needs_no_torch() -> None:
    code = "import sys, vqgan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_hub_id_is_downloaded_by_huggingface_hub(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export.export(trained, out, "safetensors")
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(out)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    frames = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(vqgan.load("someone/tokenizer").encode(frames), vqgan.load(out).encode(frames))
    assert asked == [("someone/tokenizer", ["model.safetensors", "discriminator.safetensors", "config.json"])]


def test_a_hub_id_brings_its_discriminator_to_further_training(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: Compose
) -> None:
    export.export(trained, tmp_path / "out", "safetensors")
    hub = types.SimpleNamespace(snapshot_download=lambda *_, **__: str(tmp_path / "out"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    (tmp_path / "next").mkdir()
    values = ("model=vqmodel", "init_from=someone/tokenizer", f"run_dir={tmp_path / 'next'}")
    further = make_trainer(composed(*values), tmp_path / "next")
    _, state = Checkpoints(trained / "checkpoints", keep=1).read_best()
    assert further.discriminator is not None
    for name, value in further.discriminator.state_dict().items():
        assert torch.equal(value, state["discriminator"][name]), name


def test_without_the_hub_package_or_without_a_network_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="pip install"):
        vqgan.load("someone/tokenizer")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=unreachable))
    with pytest.raises(ConfigError, match="no network"):
        vqgan.load("someone/tokenizer")


def test_a_damaged_best_checkpoint_is_not_loaded(trained: Path) -> None:
    best = (trained / "checkpoints" / "best").resolve() / "state.pt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        vqgan.load(trained)
