"""A trained autoencoder that knows what it is, and works on video files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

try:
    from huggingface_hub import ModelHubMixin
except ImportError:

    class ModelHubMixin:  # type: ignore[no-redef]
        """What is missing without the extra, in its place."""

        def push_to_hub(self, *_: object, **__: object) -> str:
            """Say what is missing."""
            raise missing_extra("The Hugging Face hub", "hub")

        @classmethod
        def from_pretrained(cls, *_: object, **__: object) -> Tokenizer:
            """Say what is missing."""
            raise missing_extra("The Hugging Face hub", "hub")


from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Backbone, Remembers
from vqgan.errors import ConfigError, missing_extra
from vqgan.quantizers import Quantizer
from vqgan.runtime.device import memory_to_begin
from vqgan.tokenizer.card import model_card
from vqgan.tokenizer.decode import decode_video, decoding_with
from vqgan.tokenizer.encode import encode_video, encoding_with
from vqgan.tokenizer.folder import read, write
from vqgan.tokenizer.rebuild import parts_of
from vqgan.tokens.folder import TokenVideo


class Tokenizer(Autoencoder, ModelHubMixin):
    """An autoencoder as `vqgan.load` gives it.

    `push_to_hub("user/name")` and `Tokenizer.from_pretrained("user/name")` are Hugging Face's (extra `hub`).

    Args:
        backbone: builds encoder and decoder.
        quantizer: between them.
        description: the content of `config.json` by which it is built again.

    Attributes:
        source: where `load` has it from; None if nobody knows.
    """

    source: str | None = None

    def __init__(self, backbone: Backbone, quantizer: Quantizer, description: Mapping[str, Any]) -> None:
        super().__init__(backbone, quantizer)
        self.description = dict(description)

    def encode_video(self, path: str | Path, **values: Any) -> TokenVideo:
        """The tokens of a video file, with the times of its frames.

        Args:
            path: of the file.
            values: of `conf/encode.yaml` to change, as `fps=8, square=True`.

        Raises:
            DataError: it cannot be used.
            ConfigError: there is no such value.
        """
        refuse_parts(self)
        return encode_video(self, encoding_with(values), Path(path))

    def decode_video(self, video: TokenVideo, path: str | Path, **values: Any) -> None:
        """Write the video that tokens stand for as mp4, at its source's size and times.

        Args:
            video: by this tokenizer.
            path: of the file to write.
            values: of `conf/decode.yaml` to change, as `size="model"`.

        Raises:
            StorageError: it cannot be written.
            ConfigError: there is no such value.
        """
        decode_video(self, decoding_with(values), encoding_with({}).work, video, Path(path))

    def sha256(self) -> str:
        """What its weights are: a hash of all tensors, their names, types and shapes."""
        return _hash_of(self.state_dict(), "")

    def sha256_of_codes(self) -> str:
        """What its codes mean: a hash of encoder, codes and sizes, which another decoder for the same codes shares.

        What counts steps is left out, and so are how gradients pass the codes, which older configs do not say, and the
        difference between 1 and 1.0 in a config.
        """
        parts = ("encoder.", "quant_conv.", "quantizer.")
        state = self.state_dict()
        weights = {k: v for k, v in state.items() if k.startswith(parts) and v.is_floating_point()}
        text = json.dumps({key: self.description.get(key) for key in ("backbone", "quantizer")})
        sizes = json.loads(
            text, parse_int=float, object_hook=lambda part: {k: v for k, v in part.items() if k != "gradient"}
        )
        return _hash_of(weights, json.dumps(sizes, sort_keys=True))

    def _save_pretrained(self, save_directory: Path) -> None:
        card = model_card(self, "USER/NAME")
        write(save_directory, self.description, self.state_dict(), None, card)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **values: Any) -> Tokenizer:
        """As the caller says (`revision`, `token`, `cache_dir` …); what the mixin itself read of the sizes is left."""
        return _load(model_id, **{key: value for key, value in values.items() if key not in ("backbone", "quantizer")})


def _hash_of(state: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(state.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def load(source: str | Path, parts: str | Path | None = None) -> Tokenizer:
    """A trained tokenizer, in evaluation mode on the CPU, its weights without gradients.

    Args:
        source: a run folder (its best checkpoint is taken), an exported folder, or the id of a Hugging Face model.
        parts: a folder with Python files whose classes the tokenizer may be built of, beside this package's own; their
            code is run.

    Raises:
        CheckpointError: it is damaged, does not fit together, or would need to run code.
        ConfigError: there is no such thing.
    """
    return _load(source, parts)


def _load(source: str | Path, parts: str | Path | None = None, **download: Any) -> Tokenizer:
    description, state = read(source, **download)
    network = rebuild(description, state, parts)
    network.load_state_dict(state)
    folder = Path(source).expanduser()
    network.source = str(folder.resolve() if folder.is_dir() else source)
    return network.eval().requires_grad_(False)


def refuse_parts(tokenizer: Autoencoder) -> None:
    """Raise `ConfigError` for a tokenizer that cannot take a video in parts."""
    if tokenizer.downsampling.time > 1 and not isinstance(tokenizer.encoder, Remembers):
        raise ConfigError(
            "This tokenizer takes whole clips, and a video is encoded in parts. In Python: "
            f"tokenizer.encode(clips), of 1 + {tokenizer.downsampling.time}·n frames, and tokenizer.decode(codes)."
        )


def rebuild(description: Mapping[str, Any], state: Mapping[str, Tensor], parts: str | Path | None = None) -> Tokenizer:
    """A tokenizer as described; see `parts_of`.

    Raises:
        CheckpointError: the description is not of this format, or tensors are missing, unknown or of another shape.
        StorageError: memory ran out.
    """
    with memory_to_begin("Choose a machine that has it."):
        return Tokenizer(*parts_of(description, state, parts), description)
