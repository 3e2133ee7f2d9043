"""Errors of a trained model in torch, as ONNX, and as ONNX with weights of 8 bits.

    cd egs2/fotaq/asr_hkd
    python3 ../../../benchmarks/export_quality.py exp/asr_… --data dump/raw/test

Greedy search, one recording at a time, one thread. Error rates are of characters
without spaces; differences to torch have a paired interval of 95 % over utterances.
``other`` counts utterances whose text differs. Seconds are those of the processor for
an hour of audio, from samples to the result with times and confidences.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from measure import describe, table
from quality import Spoken, compared, load

from espnet_cif_hkd.cli.export import load_source
from espnet_cif_hkd.inference.export.exporter import export_model
from espnet_cif_hkd.inference.onnx_runner import OnnxRecognizer
from espnet_cif_hkd.inference.recognizer import Recognizer


def text_of(engine: Any, spoken: Spoken) -> str:
    """What a recogniser finds."""
    return str(engine.recognise(spoken.samples).text)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("dump/raw/test"))
    parser.add_argument("--utterances", type=int, help="all by default")
    args = parser.parse_args()
    print(describe("espnet", "onnxruntime", threads=1) + "\n", flush=True)
    recognizer = Recognizer(args.model, greedy=True)
    spoken = load(args.data, recognizer.sampling_rate, args.utterances)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "onnx"
        export_model(load_source(args.model), folder, int8=True)
        sizes = {
            int8: sum(
                file.stat().st_size
                for file in folder.glob("*.onnx")
                if file.name.endswith(".int8.onnx") == int8
            )
            for int8 in (False, True)
        }
        engines = {
            "torch": recognizer,
            "ONNX": OnnxRecognizer(folder, threads=1),
            "ONNX, 8 bits": OnnxRecognizer(folder, int8=True, threads=1),
        }
        ways = {way: partial(text_of, engine) for way, engine in engines.items()}
        rows = compared(ways, spoken, recognizer.sampling_rate)
    mib = ", ".join(f"{size / 2**20:.1f}" for size in sizes.values())
    print(f"{len(spoken)} utterances; graphs in MiB, 32 and 8 bits: {mib}\n")
    print(table(["way", "CER, %", "against torch", "other", "s an hour"], rows))


if __name__ == "__main__":
    main()
