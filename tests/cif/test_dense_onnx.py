"""The dense form as an ONNX graph, for any batch and number of frames."""

import pytest
import torch

from espnet_cif_hkd.cif.dense import fire_densely
from espnet_cif_hkd.inference.export.onnx_files import Graph, write_graph

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


class Firing(torch.nn.Module):
    def forward(self, hs, alpha, lengths):
        return tuple(fire_densely(hs, alpha, lengths))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "firing.onnx"
    inputs = {
        "hs": torch.randn(2, 9, 3),
        "alpha": torch.rand(2, 9),
        "lengths": torch.tensor([9, 7]),
    }
    axes = {
        "hs": {0: "B", 1: "T"},
        "alpha": {0: "B", 1: "T"},
        "lengths": {0: "B"},
        "embeddings": {0: "B", 1: "L"},
        "n_tokens": {0: "B"},
        "times": {0: "B", 1: "L"},
    }
    names = ["embeddings", "n_tokens", "times"]
    firing = Graph("firing", Firing(), inputs, names, axes)
    write_graph(firing, path, {"made by": "a test"})
    return path


def test_it_has_no_loop_and_no_condition(graph):
    loaded = onnx.load(str(graph))
    kinds = {node.op_type for node in loaded.graph.node}
    assert not kinds & {"Loop", "Scan", "If", "SequenceAt"} and "MatMul" in kinds
    assert loaded.metadata_props[0].value == "a test"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_batch", "n_frames", "scale"),
    # 16,000 frames of 40 ms: more than ten minutes
    [(1, 16_000, 0.1), (3, 50, 1.0), (2, 1, 5.0), (2, 30, 0.01), (1, 2, torch.nan)],
)
def test_the_graph_fires_what_torch_fires(graph, n_batch, n_frames, scale):
    generator = torch.Generator().manual_seed(0)
    hs = torch.randn(n_batch, n_frames, 3, generator=generator)
    alpha = torch.rand(n_batch, n_frames, generator=generator) * scale
    lengths = torch.tensor([n_frames - n % n_frames for n in range(n_batch)])
    session = onnxruntime.InferenceSession(
        str(graph), providers=["CPUExecutionProvider"]
    )
    given = {"hs": hs.numpy(), "alpha": alpha.numpy(), "lengths": lengths.numpy()}
    found = session.run(None, given)
    for one, expected in zip(found, fire_densely(hs, alpha, lengths), strict=True):
        torch.testing.assert_close(
            torch.from_numpy(one), expected, rtol=0, atol=1e-6, equal_nan=True
        )
