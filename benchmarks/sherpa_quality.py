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
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from measure import describe, table
from quality import Errors, Spoken, load

from espnet_cif_hkd.cli.export import main as export
from espnet_cif_hkd.inference.recognizer import Recognizer


def with_sherpa(file: Path, tokens: Path, rate: int, bands: int) -> Callable[..., str]:
    """A function that recognises samples ``(S,)``."""
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
        return str(stream.result.text)

    return recognise


def texts_of(
    way: Callable[[Spoken], str], spoken: Sequence[Spoken]
) -> tuple[list[str], float]:
    """Texts without spaces, and seconds of the process."""
    start = time.process_time()
    texts = [way(one).replace(" ", "") for one in spoken]
    return texts, time.process_time() - start


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
            "torch, one pass": lambda one: one_pass.recognise(one.samples).text,
            "torch, autoregressive": lambda one: plain.recognise(one.samples).text,
        }
        for name, file in (("", "model.onnx"), (", 8 bits", "model.int8.onnx")):
            way = with_sherpa(Path(folder, file), tokens, rate, bands)
            ways[f"sherpa-onnx{name}"] = way
        found = {name: texts_of(way, spoken) for name, way in ways.items()}
    texts = [one.text for one in spoken]
    hours = sum(len(one.samples) for one in spoken) / rate / 3600
    errors = {name: Errors(texts, one) for name, (one, _) in found.items()}
    first = next(iter(found))
    rows = [
        [
            name,
            f"{errors[name].rate:.2f}",
            "" if name == first else errors[name].minus(errors[first]),
            sum(a != b for a, b in zip(one, found[first][0], strict=True)),
            f"{seconds / hours:.0f}",
        ]
        for name, (one, seconds) in found.items()
    ]
    print(
        f"{args.data}: {len(texts)} utterances, {errors[first].n_tokens.sum()} tokens\n"
    )
    head = ["", "CER, %", "difference", "other texts", "seconds an hour"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
