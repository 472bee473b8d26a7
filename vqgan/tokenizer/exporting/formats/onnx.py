"""Graphs for ONNX Runtime and what else reads .onnx: encoder, decoder and codes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqgan.errors import missing_extra
from vqgan.tokenizer.exporting.graphs import Graph, Run, compare, graphs_of, in_stream, no_graph
from vqgan.tokenizer.exporting.made import Made
from vqgan.tokenizer.tokenizer import Tokenizer

PICTURES = """\
import onnxruntime
encoder, decoder = (onnxruntime.InferenceSession(f"{name}/{part}.onnx") for part in ("encoder", "decoder"))
(indices,) = encoder.run(None, {"frames": frames})      # NumPy's float32 (n, rgb, h, w) in [-1, 1] -> integer codes
(frames,) = decoder.run(None, {"indices": indices})
"""
STREAM = """\
import onnxruntime
first, following = (onnxruntime.InferenceSession(f"{name}/encoder_{part}.onnx") for part in ("first", "next"))
indices, *state = first.run(None, {"frames": frames[:, :1]})      # NumPy's float32 (batch, time, rgb, h, w) in [-1, 1]
state = {f"state_{number}": value for number, value in enumerate(state)}
indices, *state = following.run(None, {"frames": frames[:, 1:], **state})      # and so on; decoder_… go back
"""


def make(tokenizer: Tokenizer, discriminator: Mapping[str, Tensor] | None) -> Made:  # noqa: ARG001
    """Every tokenizer that can be traced, of operations that ONNX has.

    Raises:
        ConfigError: it cannot, or packages are missing.
    """
    if not all(importlib.util.find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")):
        raise missing_extra("--format onnx", "onnx")
    models = {graph.name: _translated(graph) for graph in graphs_of(tokenizer)}
    with tempfile.TemporaryDirectory() as folder:
        said = compare(tokenizer, lambda name: _session(models[name], Path(folder) / f"{name}.onnx"))

    def write(folder: Path) -> None:
        for name, model in models.items():
            model.save(folder / f"{name}.onnx")

    return Made(write, STREAM if in_stream(tokenizer) else PICTURES, "onnx", said, ("*.onnx*",))


def _translated(graph: Graph) -> Any:
    """The graph in ONNX's operations, quietly: what the translation says is of its own inside.

    Raises:
        ConfigError: an operation has none.
    """
    program = graph.export()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                program, input_names=graph.inputs, output_names=graph.outputs, dynamo=True, verbose=False
            )
    except Exception as error:  # in as many ways as there are operations
        raise no_graph(graph.name, error) from None
    finally:
        logging.disable(before)


def _session(model: Any, file: Path) -> Run:
    """A graph as ONNX Runtime has it."""
    import onnxruntime

    model.save(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [taken.name for taken in session.get_inputs()]

    def run(*values: Tensor) -> list[Tensor]:
        return [torch.from_numpy(made) for made in session.run(None, dict(zip(names, (v.numpy() for v in values))))]

    return run
