"""A stream of a trained model against offline recognition: errors, tail, delay.

    cd egs2/hsk/asr_hkd
    python3 ../../../benchmarks/streaming_quality.py exp/asr_streaming --data data/test

``full context``: the same model without chunks; ``chunks``: complete utterances with
the chunk mask; ``stream``: pieces of 20 ms. ``other`` counts utterances whose tokens
differ from ``chunks``: a lost tail would be among them. Error rates are of characters
without spaces; the difference to ``full context`` has a paired interval of 95 %.

``delay`` is known for HSK: the time when a token is in a result for the first time, in
seconds of audio, minus the true end of its syllable, of the tokens that are right in
utterances with the right count. Tokens that appear at the end of the audio count, too.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from boundaries import matched
from measure import describe, table
from quality import Errors, Spoken, load
from token_times import hsk_packages, spans

from espnet_cif_hkd.encoder.chunks import FULL
from espnet_cif_hkd.encoder.geometry import algorithmic_latency
from espnet_cif_hkd.inference.recognizer import Recognizer

PIECE = 0.02  # seconds


def streamed(recognizer: Recognizer, spoken: Spoken) -> tuple[list[str], list[float]]:
    """Tokens, and the seconds of audio after which each of them appeared."""
    stream, rate = recognizer.stream(), recognizer.sampling_rate
    tokens: list[str] = []
    seconds: list[float] = []
    step = round(PIECE * rate)
    pieces = [spoken.samples[n : n + step] for n in range(0, len(spoken.samples), step)]
    heard = 0
    for piece in [*pieces, None]:
        result = stream.finish() if piece is None else stream.accept(piece)
        heard += 0 if piece is None else len(piece)
        tokens = [one.token for one in result.tokens]
        seconds += [heard / rate] * (len(tokens) - len(seconds))
    return tokens, seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("data/test"))
    parser.add_argument("--utterances", type=int, help="all by default")
    parser.add_argument("--chunk", type=int, nargs="+", help="decoding_chunk_size")
    args = parser.parse_args()
    print(describe("espnet", threads=torch.get_num_threads()) + "\n")
    recognizer = Recognizer(args.model)
    model = recognizer.speech2text.asr_model
    spoken = load(args.data, recognizer.sampling_rate, args.utterances)
    texts = [one.text for one in spoken]
    ends: dict[str, np.ndarray] = {}
    if Path("downloads", hsk_packages.VOICE.file).exists():
        names = [Path(one.entry).stem for one in spoken]
        known = spans(Path("downloads"), names)
        ends = {one.name: known[name][1] for one, name in zip(spoken, names)}
    chunks = args.chunk or [model.encoder.decoding_chunk_size]

    def offline(chunk: int) -> list[list[str]]:
        model.encoder.decoding_chunk_size = chunk
        found = recognizer.recognise([one.samples for one in spoken])
        return [[token.token for token in one.tokens] for one in found]

    def errors_of(found: list[list[str]]) -> Errors:
        tokens2text = recognizer.speech2text.tokenizer.tokens2text
        return Errors(texts, [tokens2text(tokens) for tokens in found])

    full = errors_of(offline(FULL))
    rows: list[list[object]] = [["full context", f"{full.rate:.2f}", *[""] * 6]]
    for chunk in chunks:
        masked = offline(chunk)
        latency = algorithmic_latency(model, recognizer.sampling_rate)
        assert latency is not None
        errors = errors_of(masked)
        name = f"chunks of {chunk} frames"
        ratio = f"{errors.rate / full.rate:.2f}"
        rows.append([name, f"{errors.rate:.2f}", errors.minus(full), ratio, *[""] * 4])
        found, delays = [], []
        for one in spoken:
            tokens, seconds = streamed(recognizer, one)
            found.append(tokens)
            units = recognizer.speech2text.tokenizer.text2tokens(one.text)
            if one.name in ends and len(tokens) == len(units):
                delays += [
                    seconds[here] - ends[one.name][there]
                    for here, there in matched(tokens, units)
                ]
        errors = errors_of(found)
        other = sum(a != b for a, b in zip(found, masked))
        late = ["–", "–"]
        if delays:
            late = [f"{1e3 * x:.0f}" for x in np.percentile(delays, [50, 95])]
        rows.append(
            [
                *(f"stream of {chunk}", f"{errors.rate:.2f}", errors.minus(full)),
                *(f"{errors.rate / full.rate:.2f}", other, f"{1e3 * latency:.0f}"),
                *late,
            ]
        )
    print(f"{args.data}: {len(texts)} utterances, {full.n_tokens.sum()} characters\n")
    head = ["", "CER, %", "difference", "ratio", "other", "latency, ms"]
    print(table([*head, "median delay, ms", "95th percentile"], rows))


if __name__ == "__main__":
    main()
