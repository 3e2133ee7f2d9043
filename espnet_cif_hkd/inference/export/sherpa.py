"""One graph in the layout of Paraformer, which sherpa-onnx runs on many platforms.

The runtime computes Kaldi's features (80 bands by default, Hamming window), gives them
to the graph, and chooses the likeliest token of each position until ``</s>``. Joining
of frames and normalisation are in the graph, so its metadata say that there is none.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.ending import is_too_early
from espnet_cif_hkd.decoder.frame_attention import NearFrames
from espnet_cif_hkd.encoder.kaldi_fbank import KaldiFbankFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.export.check import Comparison, check_signals
from espnet_cif_hkd.inference.export.exporter import Source, check_model, write_tokens
from espnet_cif_hkd.inference.export.frontend import GraphFeatures
from espnet_cif_hkd.inference.export.graphs import EncoderGraph, traceable
from espnet_cif_hkd.inference.export.onnx_files import (
    Graph,
    quantize,
    require_onnx,
    write_graph,
)
from espnet_cif_hkd.inference.onnx_folder import NEAR

MODEL = "model.onnx"
_IMPOSSIBLE = -1e4
_EOS = "</s>"


class ParaformerGraph(torch.nn.Module):
    """From Kaldi's features to log-probabilities.

    Args:
        model: Result of :func:`traceable`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.join = GraphFeatures(model.frontend.spec)
        self.encoder = EncoderGraph(model, None)
        nar = getattr(model, "nar", None)
        self.nar: CIFNARDecoder = model.decoder if nar is None else nar
        self.prefix = "near_" if nar is None else "nar_near_"

    def forward(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities ``(N, L, V)`` and the number of tokens ``(N,)``.

        Args:
            speech: Features, ``(N, T, C)``.
            speech_lengths: Number of valid frames, ``(N,)`` int32.
        """
        feats, lengths = self.join._joined(speech, speech_lengths.long())
        names = self.encoder.outputs
        found = dict(zip(names, self.encoder(feats, lengths), strict=True))
        near = None
        if self.nar.frame_attention is not None:
            near = NearFrames(*(found[f"{self.prefix}{name}"] for name in NEAR))
        n_tokens = found["token_lengths"]
        logp = self.nar.predict(found["fired"], n_tokens, near).log_softmax(dim=-1)
        # The runtime knows no rule of ending and stops at </s>.
        step = torch.arange(logp.size(1))
        is_eos = torch.arange(logp.size(2)) == self.nar.eos  # (V,)
        length = n_tokens[:, None]
        early = is_too_early(step, length, self.nar.eos_slack)[..., None]
        over = (step >= length)[..., None]  # (N, L, 1)
        logp = logp.masked_fill((early & is_eos) | (over & ~is_eos), _IMPOSSIBLE)
        return logp.masked_fill(over & is_eos, 0.0), n_tokens


def export_sherpa(source: Source, folder: Path, int8: bool = False) -> float:
    """Write ``model.onnx`` and ``tokens.txt`` and compare the graph with the model.

    Args:
        source: A model with ``frontend: kaldi_fbank`` and a one-pass decoder.
        folder: For the files; made if necessary.
        int8: Whether to write ``model.int8.onnx``, too.

    Returns:
        The largest difference of a log-probability.

    Raises:
        UserError: The model does not fit, or the self-check fails.
    """
    require_onnx()
    model = source.model
    check_model(model)
    _check_sherpa(model)
    if getattr(model.decoder, "length_search", None) is not None:
        logging.warning(
            "sherpa-onnx does not choose the number of tokens: model_conf.length_conf "
            "has no effect there"
        )
    spec = model.frontend.spec
    graph = ParaformerGraph(traceable(model)).eval()
    width = spec.mel.shape[1]
    metadata = {
        "vocab_size": len(model.token_list),
        "lfr_window_size": 1,
        "lfr_window_shift": 1,
        "neg_mean": ",".join(["0"] * width),
        "inv_stddev": ",".join(["1"] * width),
        "model_type": "paraformer",
        "comment": "CIF model of espnet-cif-hkd",
    }
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(0)
    lengths = torch.tensor([160, 120], dtype=torch.int32)
    write_graph(
        Graph(
            "model",
            graph,
            {
                "speech": torch.randn(2, 160, width, generator=random),
                "speech_lengths": lengths,
            },
            ["logits", "token_num"],
            {
                "speech": {0: "N", 1: "T"},
                "speech_lengths": {0: "N"},
                "logits": {0: "N", 1: "L"},
                "token_num": {0: "N"},
            },
        ),
        folder / MODEL,
        metadata,
    )
    if int8:
        quantize(folder / MODEL, folder / "model.int8.onnx")
    write_tokens(folder / "tokens.txt", sherpa_tokens(model, source.token_type))
    result = _compare(model, folder)
    try:
        result.require()
    except UserError:
        (folder / MODEL).unlink()
        raise
    return result.worst


def sherpa_tokens(model: Any, token_type: str) -> list[str]:
    """Symbols as sherpa-onnx joins them: ``</s>`` ends, ``@@`` joins with the next.

    Characters other than Chinese would have spaces between them without ``@@``.
    """
    tokens = list(model.token_list)
    tokens[model.eos] = _EOS
    if token_type != "char":
        return tokens
    special = {_EOS, "<blank>", "<unk>"}
    return [
        " "
        if token == "<space>"
        else f"{token}@@"
        if token.isascii() and token not in special
        else token
        for token in tokens
    ]


def _check_sherpa(model: Any) -> None:
    frontend = model.frontend
    if not isinstance(frontend, KaldiFbankFrontend):
        raise UserError(
            "--format sherpa: sherpa-onnx computes Kaldi's features: train a model "
            "with 'frontend: kaldi_fbank'"
        )
    spec = frontend.spec
    as_there = KaldiFbankFrontend(fs=spec.rate, n_mels=spec.mel.shape[1]).spec
    if spec.hop != as_there.hop or not np.array_equal(spec.window, as_there.window):
        raise UserError(
            "--format sherpa: sherpa-onnx has 'window: hamming', 'frame_length: 25' "
            "and 'frame_shift: 10' only"
        )
    one_pass = getattr(model, "nar", None) is not None
    if not one_pass and not isinstance(model.decoder, CIFNARDecoder):
        raise UserError(
            "--format sherpa needs a one-pass decoder: train a model with 'decoder: "
            "cif_nar' or model_conf.nar_conf"
        )


@torch.no_grad()
def _compare(model: Any, folder: Path) -> Comparison:
    import onnxruntime

    graph = onnxruntime.InferenceSession(
        str(folder / MODEL), providers=["CPUExecutionProvider"]
    )
    spec = model.frontend.spec
    nar = model.decoder if getattr(model, "nar", None) is None else model.nar
    result = Comparison()
    for index, wave in enumerate(check_signals(spec.rate)):
        samples = torch.from_numpy(wave)[None]
        hs_pad, hlens = model.encode(samples, torch.tensor([samples.size(1)]))
        fired = model.decoder.fire(hs_pad, hlens)
        near = nar.near_frames(hs_pad, hlens, fired)
        logits = nar.predict(fired.embeddings, fired.lengths, near)
        expected = logits.log_softmax(dim=-1)[0]
        plain = type(spec)(**{**vars(spec), "stack": 1, "skip": 1})
        feats = plain(wave)
        logp, count = graph.run(
            None,
            {
                "speech": feats[None],
                "speech_lengths": np.array([len(feats)], np.int32),
            },
        )
        result.n_recordings += 1
        result.n_tokens += len(expected)
        if int(count[0]) != len(expected):
            result.different.append(index)
            continue
        # </s> before the end is forbidden in the graph only.
        kept = np.arange(len(model.token_list)) != nar.eos
        result.note(
            "log-probabilities", logp[0][: len(expected)][:, kept], expected[:, kept]
        )
    return result
