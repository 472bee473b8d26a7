"""The discriminator on a frozen vision transformer: the forward pass by torch's own, and what is learnt and saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import Compose
from tests.support.vit import vit_file, vit_state
from tests.unit.training.test_step import Waits
from vqgan.discriminators import DINO
from vqgan.discriminators.dino import resized
from vqgan.discriminators.vit import ViT
from vqgan.errors import ConfigError, InvalidValueError
from vqgan.training.run import run
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vit_file(tmp_path_factory.mktemp("vit"))


def critic(file: Path, blocks: tuple[int, ...] = (0, 2)) -> DINO:
    torch.manual_seed(0)
    return DINO(str(file), blocks, 8)


def frames(count: int = 3, side: int = 12) -> Tensor:
    return torch.rand(count, 1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def tokens_by_torch(pictures: Tensor) -> list[Tensor]:
    """What enters the first block and leaves each, by torch's layers of a transformer."""
    state = vit_state()
    patches = F.unfold(pictures, 4, stride=4).mT @ state["patch_embed.proj.weight"].flatten(1).T
    patches = patches + state["patch_embed.proj.bias"]
    tokens = [torch.cat([state["cls_token"].expand(len(patches), 1, -1), patches], 1) + state["pos_embed"]]
    theirs = {
        "self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2.",
    }  # fmt: skip
    for block in range(3):
        layer = nn.TransformerEncoderLayer(
            64, 1, 128, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        layer.load_state_dict(
            {a + kind: state[f"blocks.{block}.{b}{kind}"] for a, b in theirs.items() for kind in ("weight", "bias")}
        )
        tokens.append(layer(tokens[-1]))
    return tokens


def test_the_transformer_is_torch_s_own(file: Path) -> None:
    pictures = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    found = list(ViT(file, "discriminator.weights")(pictures))
    assert len(found) == 4
    for ours, theirs in zip(found, tokens_by_torch(pictures)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_several_heads_attend_for_themselves(tmp_path: Path) -> None:
    """The same as one layer of torch's with as many heads."""
    state = vit_state(width=128, depth=1)
    torch.save(state, tmp_path / "wide.pth")
    pictures = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    before, after = ViT(tmp_path / "wide.pth", "discriminator.weights")(pictures)
    attention = nn.MultiheadAttention(128, 2, batch_first=True)
    names = {"in_proj_": "qkv.", "out_proj.": "proj."}
    attention.load_state_dict(
        {a + kind: state[f"blocks.0.attn.{b}{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
    )
    normed = F.layer_norm(before, (128,), state["blocks.0.norm1.weight"], state["blocks.0.norm1.bias"], 1e-6)
    h = before + attention(normed, normed, normed)[0]
    normed = F.layer_norm(h, (128,), state["blocks.0.norm2.weight"], state["blocks.0.norm2.bias"], 1e-6)
    hidden = F.gelu(F.linear(normed, state["blocks.0.mlp.fc1.weight"], state["blocks.0.mlp.fc1.bias"]))
    expected = h + F.linear(hidden, state["blocks.0.mlp.fc2.weight"], state["blocks.0.mlp.fc2.bias"])
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)


def head_by_hand(state: dict[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    """A head with each weight divided by its largest singular value."""

    def layer(part: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.{part}.parametrizations.weight.original"]
        weight = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
        margin = weight.shape[2] // 2
        ring = torch.cat([x[..., x.shape[2] - margin :], x, x[..., :margin]], dim=2)
        return F.conv1d(ring, weight, state[f"{name}.{part}.bias"])

    def normed(part: str, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (1, 2), keepdim=True, unbiased=False)
        scale, shift = (state[f"{name}.{part}.1.{kind}"][:, None] for kind in ("weight", "bias"))
        return F.leaky_relu((x - mean) / (variance + 1e-5).sqrt() * scale + shift, 0.2)

    h = normed("enter", layer("enter.0", tokens))
    return layer("leave", (h + normed("ring", layer("ring.0", h))) / 2**0.5)


def test_the_heads_look_at_patches_with_the_class_token_added(file: Path) -> None:
    network, x = critic(file), frames()
    for _ in range(200):
        network(x)  # until the singular values are found
    network.eval()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pictures = ((x[:, 0] + 1) / 2 - mean[:, None, None]) / deviation[:, None, None]
    tokens = tokens_by_torch(pictures)
    found = network(x)
    assert found.shape == (3, 1, 3, 3, 3)
    for head, seen in enumerate((tokens[0], tokens[1], tokens[3])):
        expected = head_by_hand(network.state_dict(), f"heads.{head}", (seen[:, 1:] + seen[:, :1]).mT)
        torch.testing.assert_close(found[:, 0, head].flatten(1), expected[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(9, 20), (12, 12), (48, 30)])
def test_frames_of_any_size_are_resized(shape: tuple[int, int], file: Path) -> None:
    pictures = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(5))
    expected = F.interpolate(pictures, (12, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(pictures, 12), expected, rtol=1e-5, atol=1e-5)
    assert critic(file)(pictures[:, None]).shape == (2, 1, 3, 3, 3)


def test_no_sample_sees_another(file: Path) -> None:
    network, x = critic(file).eval(), frames()
    other = x.clone()
    other[1:] = -other[1:]
    torch.testing.assert_close(network(other)[0], network(x)[0], rtol=1e-6, atol=1e-6)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0].square().sum(), x)
    assert float(gradient[0].abs().max()) > 0, "what is seen goes through the transformer back to the frames"
    assert float(gradient[1:].abs().max()) == 0


def test_the_transformer_stays_as_it_is_and_is_not_saved(file: Path) -> None:
    network = critic(file).train()
    assert not any(module.training for module in network.vit.modules())
    assert not any(parameter.requires_grad for parameter in network.vit.parameters())
    assert not any(name.startswith("vit") for name in network.state_dict())
    torch.manual_seed(9)
    again = DINO(str(file), (0, 2), 8)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(frames()), network.eval()(frames()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.attn.qkv.weight": torch.zeros(3)}, "blocks.1.attn.qkv.weight is"),
        ({"pos_embed": torch.zeros(1, 12, 64)}, "pos_embed is"),
        ({"patch_embed.proj.weight": torch.zeros(60, 3, 4, 4)}, "60 numbers"),
        ({"cls_token": None}, "cls_token"),
        ({"patch_embed.proj.weight": None}, "patch_embed.proj.weight"),
    ],
)
def test_a_file_of_something_else_is_named(change: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    state = {name: value for name, value in (vit_state() | change).items() if value is not None}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=rf"discriminator\.weights does not hold .*{message}"):
        critic(tmp_path / "other.pth")


def test_a_file_that_is_not_there_is_named(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"discriminator\.weights names a file that does not exist"):
        critic(tmp_path / "none.pth")
    with pytest.raises(ConfigError, match=r"discriminator\.weights=FILE.*dino_deitsmall16_pretrain\.pth"):
        DINO(None, (0,), 8)
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ConfigError, match=r"discriminator\.weights cannot be read as weights"):
        critic(tmp_path / "text.pth")
    with pytest.raises(InvalidValueError, match=r"blocks must be in \[0, 3\)"):
        critic(file, (3,))


def trained(composed: Compose, tmp_path: Path, file: Path, steps: int, *values: str) -> Trainer:
    return run(
        composed(
            "discriminator=dino", f"discriminator.weights={file}", "discriminator.blocks=[1,2]",
            f"trainer.steps={steps}",
            "loss.discriminator_start=0", "trainer.discriminator_every=1", "trainer.checkpoint_every=2", *values,
        )
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_goes_on_as_it_would_have_gone(composed: Compose, tmp_path: Path, file: Path) -> None:
    """With the singular vectors too; from wherever the file lies now."""
    whole = trained(composed, tmp_path, file, 4, f"run_dir={tmp_path / 'whole'}")
    trained(composed, tmp_path, file, 2)
    moved = vit_file(tmp_path)
    parts = trained(composed, tmp_path, moved, 4)
    assert whole.discriminator is not None
    assert parts.discriminator is not None
    found, expected = parts.discriminator.state_dict(), whole.discriminator.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_step_moves_the_heads_alone_and_a_skipped_one_nothing(composed: Compose, tmp_path: Path, file: Path) -> None:
    (tmp_path / "run").mkdir()
    values = ("discriminator=dino", f"discriminator.weights={file}", "discriminator.blocks=[1]", "optimizer=adamw")
    config = composed(*values, "loss.discriminator_start=0", "trainer.discriminator_every=1")
    trainer = make_trainer(config, tmp_path / "run")
    network, batches = trainer.discriminator, trainer.loader.batches(0)
    assert isinstance(network, DINO)
    for step in range(2):  # what starts from data does so here
        assert bool(trainer.step(step, [next(batches)]).finite)
    batch = next(batches)
    with Waits() as waits:
        trainer.step(2, [batch])
    assert waits.found == []
    state = vit_state()
    assert all(torch.equal(p, state[name]) for name, p in network.vit.named_parameters())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer.autoencoder.decoder.last_layer.data.fill_(torch.nan)
    assert not bool(trainer.step(3, [next(batches)]).finite)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
