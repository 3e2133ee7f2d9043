"""Export to ONNX: time, size, differences and speed.

    python3 benchmarks/export.py                       # about three minutes
    python3 benchmarks/export.py --recipe hsk --batch 1

The models have the sizes of two recipes and random weights: AISHELL-1's (the paper's,
4,233 units) and HSK's (1,500 units). Beside the autoregressive decoder they have a
one-pass decoder of the same size. The predictor's bias is set so that 3 tokens fire per
second. Utterances are noise of 3 to 7 s.

``search`` begins with the encoder's output, in a batch. In torch it includes the
weights of frames and the firing, which are in the encoder's graph in ONNX.
"""

import argparse
import functools
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch
import yaml
from decoding import set_firing
from espnet2.tasks.asr import ASRTask
from measure import add_options, describe, in_turns, medians, table, use_options

from espnet_cif_hkd import Speech2Text
from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.export.check import compare
from espnet_cif_hkd.inference.export.exporter import Source, export_model
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.nar import one_pass_search

RATE = 16000
TOKENS_PER_SECOND = 3
GRAPHS = ("encoder", "step", "one_pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=("aishell", "hsk"), default="aishell")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_options(parser)
    args = parser.parse_args()
    sys.argv[1:] = []  # ESPnet's defaults read it
    args.device = "cpu"
    figures = use_options(args)
    logging.disable(logging.WARNING)
    print(f"{describe('espnet', 'onnxruntime', threads=args.threads)}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recogniser = Speech2Text(
            *map(str, write_model(args.recipe, folder / "exp")),
            greedy=True,
            beam_size=1,
        )
        model = recogniser.asr_model
        decoder = model.decoder
        size = decoder.output_layer.in_features
        torch.manual_seed(0)
        nar = CIFNARDecoder(
            len(model.token_list),
            size,
            num_blocks=len(decoder.layers),
            linear_units=decoder.layers[0].feed_forward.w_1.out_features,
        ).eval()
        nar = nar.without_firing()
        nar.sos, nar.eos = model.sos, model.eos
        model.nar = nar
        waves = utterances(args.batch)
        set_firing(recogniser, waves[0], int(TOKENS_PER_SECOND * len(waves[0]) / RATE))

        started = time.perf_counter()
        export_model(Source(model, "char", Calibration()), folder / "onnx", int8=True)
        spent = time.perf_counter() - started
        figures.add("export with 8 bits", spent, "s")
        rows = []
        for bits, int8 in (("32", False), ("8", True)):
            result = compare(model, folder / "onnx", waves[:4], int8=int8)
            suffix = ".int8" if int8 else ""
            bytes_of = [
                (folder / "onnx" / f"{graph}{suffix}.onnx").stat().st_size
                for graph in GRAPHS
            ]
            figures.add(f"{bits} bits: max difference", result.worst, "log p")
            rows.append(
                [
                    bits,
                    f"{result.worst:.1e}",
                    f"{len(result.different)} of {result.n_recordings}",
                    *(round(n / 2**20, 1) for n in bytes_of),
                ]
            )
        print(f"Export with graphs of 8 bits: {spent:.1f} s\n")
        head = ["bits", "max |Δ log p|", "other tokens", *(f"{g}, MiB" for g in GRAPHS)]
        print(table(head, rows), "\n")

        ways = searches(model, folder / "onnx", waves, args.threads)
        seconds = medians(in_turns(ways, args.repeats))
        for what, spent in seconds.items():
            figures.add(what, 1000 * spent, "ms")
        base = seconds["search: torch, greedy"]
        print(f"{args.batch} utterances in a batch\n")
        print(
            table(
                ["what", "ms", "times faster than torch's greedy search"],
                [
                    [
                        what,
                        f"{1000 * s:.1f}",
                        f"{base / s:.1f}" if "search" in what else "",
                    ]
                    for what, s in seconds.items()
                ],
            )
        )


def write_model(name: str, folder: Path) -> tuple[Path, Path]:
    """Configuration and checkpoint with random weights."""
    if name == "aishell":
        return models.write_experiment("cif", folder)
    conf = models.config("cif")
    own = Path(__file__).parents[1] / "egs2/hsk/asr_hkd/conf/train_asr_cif.yaml"
    conf.update(yaml.safe_load(own.read_text("utf-8")))
    conf.update(token_list=[*models.TOKENS[:1499], models.TOKENS[-1]])
    folder.mkdir()
    torch.manual_seed(0)
    model = ASRTask.build_model(argparse.Namespace(**conf))
    torch.save(model.state_dict(), folder / "random.pth")
    text = yaml.safe_dump(conf, allow_unicode=True)
    (folder / "config.yaml").write_text(text, "utf-8")
    return folder / "config.yaml", folder / "random.pth"


def utterances(count: int) -> list[Any]:
    """Noise of 3 to 7 s."""
    random = np.random.default_rng(0)
    lengths = np.linspace(3, 7, count) * RATE
    return [random.normal(0, 0.1, int(n)).astype(np.float32) for n in lengths]


@torch.no_grad()
def searches(
    model: Any, folder: Path, waves: list[Any], threads: int
) -> dict[str, Any]:
    """The alternatives by name."""
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(wave) for wave in waves], batch_first=True
    )
    lengths = torch.tensor([len(wave) for wave in waves])
    hs_pad, hlens = model.encode(padded, lengths)
    alpha = model.decoder.predictor(hs_pad, hlens)
    n_tokens = integrate_and_fire(hs_pad, alpha, hlens).lengths
    print(f"{int(n_tokens.max())} tokens at most, {int(hlens.max())} frames\n")
    found: dict[str, Any] = {
        "search: torch, greedy": functools.partial(
            greedy_search, model.decoder, hs_pad, hlens
        ),
        "search: torch, one pass": functools.partial(
            one_pass_search, model.nar, hs_pad, hlens, firing=model.decoder
        ),
        "encoder: torch": functools.partial(encode, model, padded, lengths),
    }
    for bits, int8 in (("", False), (", 8 bits", True)):
        for name, one_pass in (("greedy", False), ("one pass", True)):
            runner = OnnxRecognizer(
                folder, int8=int8, one_pass=one_pass, threads=threads
            )
            encoded = runner.encode(waves)
            found[f"search: ONNX, {name}{bits}"] = functools.partial(
                runner.decode, encoded
            )
        found[f"encoder: ONNX{bits}"] = functools.partial(runner.encode, waves)
    return found


@torch.no_grad()
def encode(model: Any, padded: torch.Tensor, lengths: torch.Tensor) -> None:
    """Frontend and encoder in torch."""
    model.encode(padded, lengths)


if __name__ == "__main__":
    main()
