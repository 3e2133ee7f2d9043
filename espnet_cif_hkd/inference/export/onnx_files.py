"""Write modules as ONNX files, also with weights of 8 bits."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError, one_line

OPSET = 17
_EXTRA = "pip install 'espnet-cif-hkd[export]'"


def require_onnx() -> None:
    """Check that the packages of the extra ``export`` are installed.

    Raises:
        UserError: One is missing.
    """
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise UserError(f"export needs {name}: {_EXTRA} ({error})") from error


@dataclass(frozen=True)
class Graph:
    """A module that becomes a file.

    Attributes:
        name: Of the file.
        module: In ``eval`` mode.
        inputs: Examples by name, in the order of the arguments of ``forward``.
        outputs: Names.
        axes: Names of the dimensions of any size, by input and output.
    """

    name: str
    module: torch.nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    axes: Mapping[str, Mapping[int, str]]


def write_graph(graph: Graph, path: Path, metadata: Mapping[str, Any]) -> None:
    """Trace a module and write it.

    Args:
        graph: The module.
        path: The file.
        metadata: Written into the file.

    Raises:
        UserError: An operation has no counterpart in ONNX.
    """
    import onnx

    partial = path.with_name(f"{path.name}.partial")
    try:
        with warnings.catch_warnings(), torch.no_grad(), _quiet():
            # The tracer warns of each Python number; the exporter is called the old
            # one. The check after the export compares results.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                str(partial),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_axes={name: dict(axes) for name, axes in graph.axes.items()},
                opset_version=OPSET,
                dynamo=False,
            )
    except UserError:
        raise
    except Exception as error:
        reason = one_line(error, 300)
        raise UserError(
            f"{path.name}: this model cannot be exported ({type(error).__name__}: "
            f"{reason})"
        ) from error
    written = onnx.load(str(partial))
    for name, value in metadata.items():
        written.metadata_props.add(key=name, value=str(value))
    onnx.save(written, str(partial))
    os.replace(partial, path)


def quantize(path: Path, target: Path) -> None:
    """Write a copy whose matrices have 8 bits; activations are quantised at run time.

    Args:
        path: A file of :func:`write_graph`.
        target: The new file.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(str(path)).graph
    wide = {one.name for one in graph.initializer if one.data_type != 1}
    # The Fourier transform of the frontend is in float64.
    kept = [node.name for node in graph.node if wide & set(node.input)]
    partial = target.with_name(f"{target.name}.partial")
    level = logging.getLogger().level
    try:
        logging.getLogger().setLevel(logging.ERROR)
        quantize_dynamic(
            str(path),
            str(partial),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=[name for name in kept if name],
        )
    finally:
        logging.getLogger().setLevel(level)
    os.replace(partial, target)


@contextlib.contextmanager
def _quiet() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        yield
