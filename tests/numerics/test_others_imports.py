"""Other projects' checkpoints, as they write them, give their own numbers; `GOLDEN_OTHERS` names another folder."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import re
import shlex
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file
from torch import Tensor

import vqgan
from tests.numerics.reference import filled, inputs
from tests.numerics.test_taming import FILES, Reference
from vqgan.config.build import conf_dir
from vqgan.discriminators import PatchGAN
from vqgan.errors import CheckpointError, ConfigError
from vqgan.files.plain_data import Unread, read_plain
from vqgan.frames import per_frame
from vqgan.tokenizer.export import export
from vqgan.tokenizer.folder import write
from vqgan.tokenizer.importing.imported import Imported
from vqgan.tokenizer.importing.source import Source
from vqgan.tokenizer.taming import translate as import_taming
from vqgan.training.wiring import make_trainer

FOLDER = Path(os.environ.get("GOLDEN_OTHERS", Path(__file__).parent.parent / "golden" / "others"))
CODES, PICTURES = 1e-5, 5e-5  # of the largest value
CLASSES = {  # of the originals, and which kind imports them
    "VQModel": "llamagen", "IBQ": "ibq", "lfqgan.VQModel": "open-magvit2", "diffusers.VQModel": "diffusers-vq",
    "autoencoder_v1_1.AutoencodingEngine": "vidtok",
}  # fmt: skip
NOT_IN_SHAPES = ("codebook_l2_norm", "norm_num_groups", "encoder_config", "regularizer_config")
COMMAND = importlib.import_module("vqgan.commands.import_")

KINDS: dict[str, Callable[[Source], Imported]] = {
    kind: importlib.import_module(f"vqgan.tokenizer.importing.kinds.{module}").translate
    for kind, module in COMMAND.KINDS.items()
}


class Case:
    """A network of the originals: its state, its config and its numbers."""

    def __init__(self, file: Path, name: str, described: dict[str, Any]) -> None:
        self.kind = CLASSES[described["class"]]
        self.described, self.config = described, described["config"]
        with np.load(file.with_suffix(".npz")) as arrays:
            own = [key for key in arrays if key.startswith(f"{name}/")]
            self.arrays = {key.removeprefix(f"{name}/"): torch.from_numpy(arrays[key]) for key in own}

    def state(self) -> dict[str, Tensor]:
        left = self.described["left_as_built"]
        shapes = self.described["state_shapes"]
        return {name: torch.zeros(shape) if name in left else filled(name, shape) for name, shape in shapes.items()}

    def input(self) -> Tensor:
        given = self.described["input"]
        if given["formula"] == "inputs":
            return inputs(*given["args"])
        batch, channels, time, height, width, start = given["args"]
        return torch.stack([inputs(batch, channels, height, width, start + j) for j in range(time)], dim=1)

    def settings(self) -> dict[str, Any]:
        return dict(self.config)

    def source(self) -> Source:
        return Source(self.state(), self.settings())


def cases(*kinds: str) -> pytest.MarkDecorator:
    found = [
        pytest.param(Case(file, name, described), id=f"{file.stem}-{name}")
        for file in sorted(FOLDER.glob("*.json"))
        for name, described in json.loads(file.read_text())["cases"].items()
        if name.endswith("eval")
        and CLASSES.get(described["class"]) in (kinds or CLASSES.values())
        and not described["config"].get("l2_normalize")
    ]
    assert found or kinds, f"no golden file in {FOLDER}"  # another folder may lack one of the kinds
    return pytest.mark.parametrize("case", found)


def translate(case: Case, source: Source) -> vqgan.Tokenizer:
    return KINDS[case.kind](source).autoencoder


def assert_close(ours: Tensor, theirs: Tensor, relative: float) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


@torch.no_grad()
def check(case: Case, tokenizer: vqgan.Tokenizer, prefix: str = "") -> None:
    """Latents, codes and pictures are the originals'."""
    latent, indices, reconstruction = (case.arrays[prefix + name] for name in ("latent", "indices", "reconstruction"))
    frames, time = case.input(), tokenizer.downsampling.time
    if frames.ndim == 4:  # pictures
        frames, latent, reconstruction, indices = (x.unsqueeze(1) for x in (frames, latent, reconstruction, indices))
    else:  # of the first time of codes only the last frame is a frame of the clip
        latent, reconstruction = latent.transpose(1, 2), reconstruction.transpose(1, 2)[:, time - 1 :]
    assert_close(per_frame(tokenizer.quant_conv, tokenizer.encoder(frames)), latent, CODES)
    quantized = tokenizer.quantize(frames) if frames.shape[1] % time == 1 % time else tokenizer.quantizer(latent)
    assert torch.equal(quantized.indices, indices.long())
    decoded = tokenizer.reconstruct(tokenizer.quantizer.lookup(indices.long()))
    assert_close(decoded, reconstruction, PICTURES)
    assert torch.equal(tokenizer.reconstruct(quantized.latents), decoded)
    if time == 1:
        assert torch.equal(tokenizer.decode(indices), decoded)


@cases()
def test_the_same_weights_give_the_originals_numbers(case: Case) -> None:
    prefix = "ema/" if case.config.get("use_ema") else ""
    check(case, translate(case, case.source()), prefix)


@cases()
def test_sizes_are_read_off_the_tensors(case: Case) -> None:
    needed = {key: value for key, value in case.settings().items() if key in NOT_IN_SHAPES}
    check(case, translate(case, Source(case.state(), needed)), "ema/" if "ema/latent" in case.arrays else "")


@cases("ibq", "open-magvit2")
def test_the_weights_themselves_where_no_average_is_asked_for(case: Case) -> None:
    check(case, translate(case, Source(case.state(), case.settings() | {"use_ema": False})))


@cases("diffusers-vq")
def test_an_import_is_exported_as_the_very_file_that_it_was(case: Case, tmp_path: Path) -> None:
    tokenizer = translate(case, case.source())
    write(tmp_path / "ours", tokenizer.description, tokenizer.state_dict(), None, "")
    if not case.config["mid_block_add_attention"]:  # zeros for us, which is nothing
        pytest.skip("our network has attention in the middle")
    export(tmp_path / "ours", tmp_path / "theirs", "diffusers")
    state, expected = load_file(tmp_path / "theirs" / "diffusion_pytorch_model.safetensors"), case.state()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    said = case.config | {"vq_embed_dim": case.config["vq_embed_dim"] or case.config["latent_channels"]}
    unsaid = ("scaling_factor", "force_upcast")  # of diffusion models
    assert {key: config.get(key) for key in said if key not in unsaid} == {
        key: value for key, value in said.items() if key not in unsaid
    }


def a_discriminator() -> dict[str, Tensor]:
    state: dict[str, Tensor] = PatchGAN(3, 8, 2, "batch").state_dict()
    return state


def lightning(case: Case) -> dict[str, Any]:
    """What Lightning saves beside the tensors, and the tensors of a loss."""
    state = case.state() | {f"loss.discriminator.{k}": v for k, v in a_discriminator().items()}
    state["loss.perceptual_loss.lin0.model.1.weight"] = torch.zeros(1, 64, 1, 1)
    callbacks = {"ModelCheckpoint{'monitor': 'train/rec_loss'}": {"best_model_score": torch.tensor(0.5)}}
    steps = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.2.0"}
    return {
        **steps,
        "state_dict": state,
        "loops": {},
        "callbacks": callbacks,
        "optimizer_states": [],
        "lr_schedulers": [],
    }


def as_llamagen(case: Case, folder: Path) -> list[Path | str]:
    typed = argparse.Namespace(**case.config, vq_model="VQ-16", image_size=256, lr=1e-4, finetune=False)
    parts = {"model": case.state(), "optimizer": {"state": {}, "param_groups": []}, "discriminator": a_discriminator()}
    torch.save({**parts, "optimizer_disc": {}, "steps": 7, "args": typed}, folder / "0000007.pt")
    return [folder / "0000007.pt"]


def as_seed_voken(case: Case, folder: Path) -> list[Path | str]:
    torch.save(lightning(case), folder / "epoch=3.ckpt")
    loss = {"target": "src.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": {"disc_weight": 0.4}}
    values = {**case.config, "learning_rate": 1e-4, "lossconfig": loss}
    config = {
        "seed_everything": True,
        "trainer": {"max_epochs": 330},
        "model": {"class_path": "x", "init_args": values},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return [folder / "epoch=3.ckpt", "--config", folder / "config.yaml"]


def as_diffusers(case: Case, folder: Path) -> list[Path | str]:
    save_file(case.state(), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"_class_name": "VQModel", "_diffusers_version": "0.40", **case.config})
    )
    return [folder]


def as_vidtok(case: Case, folder: Path) -> list[Path | str]:
    file = folder / "vidtok_v1_1.ckpt"
    torch.save({"state_dict": case.state() | {"loss.logvar": torch.zeros(())}}, file)
    decoder = {**case.config["decoder_config"], "params": "${model.params.encoder_config.params}"}
    params = {**case.config, "decoder_config": decoder, "monitor": "val/rec_loss"}
    file.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"target": "vidtok.models.x", "params": params}}))
    return [file]


WRITERS: dict[str, Callable[[Case, Path], list[Path | str]]] = {
    "llamagen": as_llamagen,
    "ibq": as_seed_voken,
    "open-magvit2": as_seed_voken,
    "diffusers-vq": as_diffusers,
    "vidtok": as_vidtok,
}
HAS_DISCRIMINATOR = ("llamagen", "ibq", "open-magvit2")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["vqgan import", *map(str, arguments)])
    COMMAND.main()


@cases()
def test_a_file_as_the_project_writes_it_is_imported_and_trained_further(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tokenizer"
    command(monkeypatch, case.kind, *WRITERS[case.kind](case, tmp_path), "--out", out)
    tokenizer = vqgan.load(out)
    check(case, tokenizer, "ema/" if case.config.get("use_ema") else "")
    card = (out / "README.md").read_text()
    assert str(tmp_path) not in card, "the folder is there to be shared"
    printed = capsys.readouterr().out.splitlines()[-1]
    if tokenizer.downsampling.time > 1:
        with pytest.raises(ConfigError, match=r"whole clips.*tokenizer\.encode"):
            tokenizer.encode_video(tmp_path / "video.mp4")
    assert "init_from=tokenizer " in card
    typed = shlex.split(printed)
    assert typed[:2] == ["python", "train.py"]
    overrides = [word for word in typed[2:] if not word.startswith(("data=", "data.root="))]
    small = ["logger=none", "trainer.device=cpu", "loss=no_perceptual", "data.batch_size=1", "data.workers=0",
             "data.videos=2", "data.video_frames=20", "data.validation_clips=2"]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*overrides, *small, f"run_dir={tmp_path / 'run'}"])
    trainer = make_trainer(config, tmp_path / "run")
    for name, value in trainer.autoencoder.state_dict().items():
        assert torch.equal(value, tokenizer.state_dict()[name]), name
    assert (out / "discriminator.safetensors").exists() == (case.kind in HAS_DISCRIMINATOR)
    if case.kind in HAS_DISCRIMINATOR:
        assert trainer.discriminator is not None
        assert trainer.discriminator.state_dict()["main.0.weight"].shape[0] == 8


MISFITS: dict[str, Callable[[dict[str, Tensor], str], Any]] = {
    "missing": dict.pop,
    "left over": lambda state, name: state.update({name + "2": torch.zeros(1)}),
    "of another shape": lambda state, name: state.update({name: torch.zeros(7)}),
}


@pytest.mark.parametrize("misfit", MISFITS)
@cases()
def test_tensors_that_do_not_fit_are_named_as_the_project_names_them(case: Case, misfit: str) -> None:
    shapes = case.described["state_shapes"]
    names = [name for name in shapes if not name.startswith("model_ema.")]
    averaged = bool(case.config.get("use_ema"))
    inner = [name for name in names if ".conv2." in name and name.endswith("weight")]
    whole = case.state()
    attention = [name for name in names if re.search(r"encoder\.(down|conv).*\.(q|to_q)\.weight", name)]
    for name in (names[0], names[-1], inner[1], inner[len(inner) // 2], *attention[:1]):
        state = dict(whole)
        spoilt = f"model_ema.{name.replace('.', '')}" if averaged else name
        MISFITS[misfit](state, spoilt)
        with pytest.raises(CheckpointError, match=re.escape(spoilt)):
            translate(case, Source(state, case.settings()))


@cases("ibq")
def test_unit_vectors_of_ibq_are_refused(case: Case) -> None:
    with pytest.raises(ConfigError, match="l2_normalize"):
        translate(case, Source(case.state(), case.settings() | {"l2_normalize": True}))


@cases("ibq", "open-magvit2")
def test_a_config_of_another_checkpoint_is_refused(case: Case) -> None:
    sizes = case.config["ddconfig"] | {"ch": 7 * case.config["ddconfig"]["ch"]}
    with pytest.raises(ConfigError, match=r"ch=.* the checkpoint has"):
        translate(case, Source(case.state(), case.settings() | {"ddconfig": sizes}))


@cases("diffusers-vq")
def test_older_names_of_attention_and_files_of_torch(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = re.compile(r"\.(to_q|to_k|to_v|to_out\.0)\.")
    state = {pattern.sub(lambda m: f".{older[m[1]]}.", name): value for name, value in case.state().items()}
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    command(monkeypatch, case.kind, tmp_path, "--out", tmp_path / "out")
    check(case, vqgan.load(tmp_path / "out"))


@pytest.mark.parametrize(
    ("key", "value"), [("act_fn", "gelu"), ("norm_type", "spatial"), ("lookup_from_codebook", True), ("act_fn", 5)]
)
@cases("diffusers-vq")
def test_settings_that_cannot_be_honoured_are_named(case: Case, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        translate(case, Source(case.state(), case.settings() | {key: value}))


@cases("diffusers-vq")
@torch.no_grad()
def test_no_attention_in_the_middle_is_one_that_adds_nothing(case: Case) -> None:
    state = {name: value for name, value in case.state().items() if ".mid_block.attentions." not in name}
    with pytest.raises(CheckpointError, match=r"mid_block\.attentions\.0\.to_k"):
        translate(case, Source(state, case.settings()))
    tokenizer = translate(case, Source(state, case.settings() | {"mid_block_add_attention": False}))
    x = torch.randn(1, tokenizer.encoder.norm_out.num_channels, 4, 4)
    assert torch.equal(tokenizer.encoder.mid.attn_1(x), x)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


def check_reference(tokenizer: vqgan.Tokenizer, reference: Reference) -> None:
    with torch.no_grad():
        output = tokenizer(reference.frames)
    assert torch.equal(output.indices, reference.indices)
    assert_close(output.reconstruction, reference.reconstruction, 2 * PICTURES)


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("kind", ["taming", "ldm"])
def test_the_reference(
    kind: str, has_config: bool, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, file = reference.state, tmp_path / "last.ckpt"
    params = {key: value for key, value in reference.params.items() if key != "variant"}
    model = {"target": "taming.models.vqgan.VQModel", "params": params}
    if kind == "ldm":
        state = {f"first_stage_model.{name}": value for name, value in state.items()}
        state |= {"model.diffusion_model.out.2.bias": torch.zeros(4), "scale_factor": torch.tensor(1.0)}
        model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": {"first_stage_config": model}}
    torch.save({"state_dict": state, "global_step": 7}, file)
    if has_config:
        file.with_suffix(".yaml").write_text(yaml.safe_dump({"model": model}))
    command(monkeypatch, kind, file, "--out", tmp_path / "out")
    tokenizer = vqgan.load(tmp_path / "out")
    check_reference(tokenizer, reference)
    same = import_taming(reference.state, reference.params).description
    differing = {key for key in same["backbone"] if tokenizer.description["backbone"][key] != same["backbone"][key]}
    assert differing <= (set() if has_config else {"resolution", "attention_resolutions"})
    assert tokenizer.description["quantizer"] == same["quantizer"]
    assert (tmp_path / "out" / "discriminator.safetensors").exists()


def test_older_lightning_files_name_classes_that_are_not_looked_for(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    checkpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = checkpoint  # type: ignore[attr-defined]
    file, content = tmp_path / "last.ckpt", {"state_dict": reference.state}
    with monkeypatch.context() as there:
        for parent in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            there.setitem(sys.modules, parent, types.ModuleType(parent))
        there.setitem(sys.modules, module.__name__, module)
        torch.save({**content, "callbacks": {checkpoint: {"best_model_path": "x"}}}, file)
        torch.save({**content, "callbacks": checkpoint()}, tmp_path / "made.ckpt")
    command(monkeypatch, "ldm", file, "--out", tmp_path / "out")
    check_reference(vqgan.load(tmp_path / "out"), reference)
    read = read_plain(tmp_path / "made.ckpt", foreign=True)
    assert type(read["callbacks"]) is Unread
    for other in (file, tmp_path / "made.ckpt"):
        with pytest.raises(CheckpointError):
            read_plain(other)


@cases("llamagen")
def test_llamagens_average_is_taken_and_another_discriminator_left_out(case: Case) -> None:
    state = case.state()
    content = {"ema": state, "model": {name: torch.zeros_like(value) for name, value in state.items()}}
    for strange in ({"model.0.weight": torch.zeros(3)}, 5, {"main": "text"}):
        imported = KINDS["llamagen"](Source({**content, "discriminator": strange}, case.settings()))
        assert imported.discriminator == {}
    check(case, imported.autoencoder)


def test_autoencoders_without_codes_are_refused(reference: Reference) -> None:
    for change, said in ({"quantize.embed.weight": torch.zeros(1)}, "Gumbel"), ({}, "KL"):
        state = {name: value for name, value in reference.state.items() if "quantize" not in name} | change
        for kind in ("taming", "ldm"):
            with pytest.raises(ConfigError, match=said):
                KINDS[kind](Source({"state_dict": state}, {}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["encoder_config"].update(target="vidtok.modules.model_3dcausal.EncoderCausal3DPadding"), "1.0"),
        (lambda c: c["encoder_config"]["params"].update(norm_type="groupnorm"), "norm_type"),
        (lambda c: c["regularizer_config"].pop("params"), "levels"),
        (lambda c: c["regularizer_config"]["params"].update(num_codebooks=2), "levels"),
        (lambda c: c["regularizer_config"]["params"]["levels"].append(5), "levels"),
        (lambda c: c["regularizer_config"]["params"].update(levels=["x"] * 3), "levels"),
        (lambda c: c["decoder_config"]["params"].update(interpolation_mode="area"), "interpolation"),
    ],
)
@cases("vidtok")
def test_what_is_not_of_vidtok_1_1_with_fsq_is_refused(case: Case, change: Callable[[Any], Any], said: str) -> None:
    settings = copy.deepcopy(case.settings())
    change(settings)
    with pytest.raises(ConfigError, match=said):
        translate(case, Source(case.state(), settings))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in ({}, {"model": 5}, {"state_dict": {"a": 1}}, [1], {"model": {"a": torch.zeros(1)}}):
        torch.save(content, tmp_path / "file.pt")
        for kind in COMMAND.KINDS:
            with pytest.raises((CheckpointError, ConfigError)):
                command(monkeypatch, kind, tmp_path / "file.pt", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
