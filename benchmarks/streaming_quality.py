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

The second table has the errors of starts and ends against HSK's known times, and the
quality of confidences, with the model's calibration.json if there is one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from boundaries import HEAD, Boundaries, matched
from confidence import MEASURES, Rated
from confidence import cells as confidence_cells
from hsk_times import Span, compare, known_spans, timed
from measure import describe, table
from quality import Errors, Spoken, load

from espnet_cif_hkd.encoder.chunks import FULL
from espnet_cif_hkd.encoder.geometry import algorithmic_latency
from espnet_cif_hkd.inference import fitting
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.recognizer import Recognizer

PIECE = 0.02  # seconds


def streamed(recognizer: Recognizer, spoken: Spoken) -> tuple[Recognition, list[float]]:
    """The result, and the seconds of audio after which each token appeared."""
    stream, rate = recognizer.stream(), recognizer.sampling_rate
    seconds: list[float] = []
    step = round(PIECE * rate)
    pieces = [spoken.samples[n : n + step] for n in range(0, len(spoken.samples), step)]
    heard = 0
    for piece in [*pieces, None]:
        result = stream.finish() if piece is None else stream.accept(piece)
        heard += 0 if piece is None else len(piece)
        seconds += [heard / rate] * (len(result.tokens) - len(seconds))
    return result, seconds


class Quality:
    """Times and confidences of results.

    Args:
        texts: Units of each utterance.
        known: Begins and ends of its syllables in seconds; None: unknown.
    """

    def __init__(
        self, texts: Sequence[list[str]], known: Sequence[Span | None]
    ) -> None:
        self._texts, self._known = texts, known

    def cells(self, found: Sequence[Recognition]) -> list[object]:
        """Below ``HEAD``, of the tokens in utterances with the right count, and AUC,
        ECE and NCE of all tokens.
        """
        boundaries = Boundaries()
        rated: list[Rated] = []
        for one, text, spans in zip(found, self._texts, self._known, strict=True):
            if spans is not None and len(one.tokens) == len(text):
                compare(timed(one), text, spans, boundaries)
            right, _ = fitting.right_tokens([token.token for token in one.tokens], text)
            sure = np.array([token.confidence for token in one.tokens], float)
            rated.append((sure, right))
        return [*boundaries.row(), *confidence_cells(rated, draws=500)]

    def delays(
        self, found: Sequence[Recognition], seconds: Sequence[list[float]]
    ) -> list[str]:
        """Median and 95th percentile in milliseconds."""
        late: list[float] = []
        every = zip(found, seconds, self._texts, self._known, strict=True)
        for one, when, text, spans in every:
            if spans is not None and len(one.tokens) == len(text):
                tokens = [token.token for token in one.tokens]
                late += [
                    when[here] - spans[1][there]
                    for here, there in matched(tokens, text)
                ]
        if not late:
            return ["–", "–"]
        return [f"{1e3 * x:.0f}" for x in np.percentile(late, [50, 95])]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("data/test"))
    parser.add_argument("--utterances", type=int, help="all by default")
    parser.add_argument("--chunk", type=int, nargs="+", help="decoding_chunk_size")
    args = parser.parse_args()
    print(describe("espnet", threads=torch.get_num_threads()) + "\n", flush=True)
    recognizer = Recognizer(args.model)
    speech2text = recognizer.speech2text
    model, tokenizer = speech2text.asr_model, speech2text.tokenizer
    spoken = load(args.data, recognizer.sampling_rate, args.utterances)
    quality = Quality(
        [tokenizer.text2tokens(one.text) for one in spoken],
        known_spans([one.entry for one in spoken]),
    )
    chunks = args.chunk or [model.encoder.decoding_chunk_size]

    def offline(chunk: int) -> list[Recognition]:
        model.encoder.decoding_chunk_size = chunk
        return recognizer.recognise([one.samples for one in spoken])

    def errors_of(found: Sequence[Recognition]) -> Errors:
        return Errors([one.text for one in spoken], [one.text for one in found])

    complete = offline(FULL)
    full = errors_of(complete)
    rows: list[list[object]] = [["full context", f"{full.rate:.2f}", *[""] * 6]]
    details: list[list[object]] = [["full context", *quality.cells(complete)]]
    for chunk in chunks:
        masked = offline(chunk)
        latency = algorithmic_latency(model, recognizer.sampling_rate)
        assert latency is not None
        errors = errors_of(masked)
        ratio = f"{errors.rate / full.rate:.2f}"
        name = f"chunks of {chunk}"
        rows.append([name, f"{errors.rate:.2f}", errors.minus(full), ratio, *[""] * 4])
        details.append([name, *quality.cells(masked)])
        found, seconds = zip(*(streamed(recognizer, one) for one in spoken))
        errors = errors_of(found)
        other = sum(
            [token.id for token in a.tokens] != [token.id for token in b.tokens]
            for a, b in zip(found, masked)
        )
        rows.append(
            [
                *(f"stream of {chunk}", f"{errors.rate:.2f}", errors.minus(full)),
                *(f"{errors.rate / full.rate:.2f}", other, f"{1e3 * latency:.0f}"),
                *quality.delays(found, seconds),
            ]
        )
        details.append([f"stream of {chunk}", *quality.cells(found)])
    print(f"{args.data}: {len(spoken)} utterances, {full.n_tokens.sum()} characters\n")
    head = ["", "CER, %", "difference", "ratio", "other", "latency, ms"]
    print(table([*head, "median delay, ms", "95th percentile"], rows) + "\n")
    print(table(["", *HEAD, *MEASURES], details))


if __name__ == "__main__":
    main()
