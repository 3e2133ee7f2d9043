"""Errors and speed of a one-pass model in sherpa-onnx, against the model in torch.

    cd egs2/hsk/asr_hkd
    ./run.sh --system cif --asr_config conf/train_asr_cif_sherpa.yaml
    python3 ../../../benchmarks/sherpa_quality.py exp/asr_… --data data/test

The wheel of sherpa-onnx runs the exported model without changes: its own features, its
own search. Error rates are of characters without spaces; the difference to torch has a
paired interval of 95 %. Seconds are those of the process, for an hour of audio, one
utterance at a time.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import describe, table
from quality import Spoken, compared, load

from espnet_cif_hkd.cli.export import main as export
from espnet_cif_hkd.inference.recognizer import Recognizer


def with_sherpa(file: Path, tokens: Path, rate: int, bands: int) -> Callable[..., str]:
    """A function that recognises an utterance; its text has no spaces."""
    import sherpa_onnx

    recognizer = sherpa_onnx.OfflineRecognizer.from_paraformer(
        paraformer=str(file),
        tokens=str(tokens),
        num_threads=1,
        sample_rate=rate,
        feature_dim=bands,
    )

    def recognise(spoken: Spoken) -> str:
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, spoken.samples)
        recognizer.decode_streams([stream])
        return str(stream.result.text).replace(" ", "")

    return recognise


def text_of(recognizer: Recognizer, spoken: Spoken) -> str:
    """What a recogniser finds, without spaces."""
    return recognizer.recognise(spoken.samples).text.replace(" ", "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("data/test"))
    parser.add_argument("--utterances", type=int, help="all by default")
    args = parser.parse_args()
    print(describe("espnet", "onnxruntime", "sherpa-onnx", threads=1) + "\n")
    one_pass = Recognizer(args.model, one_pass=True)
    plain = Recognizer(args.model)
    rate = one_pass.sampling_rate
    bands = one_pass.speech2text.asr_model.frontend.spec.mel.shape[1]
    spoken = load(args.data, rate, args.utterances)
    with tempfile.TemporaryDirectory() as folder:
        command = ["--model", args.model, "--out", folder, "--format", "sherpa"]
        export([*command, "--int8"])
        tokens = Path(folder, "tokens.txt")
        ways: dict[str, Callable[[Spoken], str]] = {
            "torch, one pass": lambda one: text_of(one_pass, one),
            "torch, autoregressive": lambda one: text_of(plain, one),
        }
        for name, file in (("", "model.onnx"), (", 8 bits", "model.int8.onnx")):
            way = with_sherpa(Path(folder, file), tokens, rate, bands)
            ways[f"sherpa-onnx{name}"] = way
        rows = compared(ways, spoken, rate)
    print(f"{args.data}: {len(spoken)} utterances\n")
    head = ["", "CER, %", "difference", "other texts", "seconds an hour"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
