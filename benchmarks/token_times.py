"""Over how many frames CIF spreads a token; for HSK also the error of its firing times.

    cd egs2/hsk/asr_hkd; ./run.sh --system cif   # or any other training
    python3 ../../../benchmarks/token_times.py exp/asr_train_asr_cif_raw_zh_char …

Uses utterances of dev (``--set``), encoded one by one. ``frames a token``: over how
many encoder frames the weight of a fired vector is spread, (Σ w)² / Σ w², mean over
tokens: 1 for one frame, n for n frames with equal weights. ``fired right``: share of
utterances that fire as many tokens as they have units (and ``<eos>``); ``CTC right``:
share with as many tokens on CTC's best path.

HSK's sentences are joined from recordings of syllables, so their times are known. For
the utterances with the right count, ``fires`` is the firing time of a token minus the
end of its syllable, ``CTC peak`` the centre of a token's first CTC frame minus the
middle of its syllable. Milliseconds: median, and 5th to 95th percentile.

A second table has the errors of the starts and ends that ``Recognizer`` gives, with the
run's calibration.json if there is one: of the syllables that it recognises in
utterances with the right count, and of all with the text given. ``--peer`` names a
model of faster-whisper (see ``peer_whisper.py``); of its words, those of one character
are compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boundaries import HEAD, Boundaries, given
from hsk_times import RATE, Span, compare, known_spans, timed
from measure import describe, table
from peer_whisper import FasterWhisper
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from espnet_cif_hkd.cif import integrate_and_fire  # noqa: E402
from espnet_cif_hkd.encoder.geometry import frame_times  # noqa: E402
from espnet_cif_hkd.inference.recognizer import Recognizer  # noqa: E402
from espnet_cif_hkd.io.tables import read_table  # noqa: E402

COUNTS = ["run", "frames a token", "fired right, %", "CTC right, %"]
TIMES = ["fires, ms", "5 % to 95 %", "CTC peak, ms", "5 % to 95 %"]


def spread(alpha: Tensor) -> list[float]:
    """Over how many frames each token fired by ``alpha (T,)`` is spread."""
    frames = torch.eye(len(alpha), dtype=torch.float64)[None]
    lengths = torch.tensor([len(alpha)])
    weights = integrate_and_fire(frames, alpha.double()[None], lengths).embeddings[0]
    return (weights.sum(1) ** 2 / (weights**2).sum(1)).tolist()


def peaks(best: Sequence[int], blank: int = 0) -> list[int]:
    """The first frame of each token of CTC's best path."""
    before = [blank, *best[:-1]]
    return [t for t, (a, b) in enumerate(zip(before, best)) if b not in (a, blank)]


class Found:
    """The measurements of one model so far."""

    def __init__(self) -> None:
        self.spread: list[float] = []
        self.right = [0, 0]
        self.fires: list[np.ndarray] = []
        self.peaks: list[np.ndarray] = []
        self.utterances = 0

    def add(
        self, model: Any, samples: np.ndarray, n_units: int, spoken: Span | None
    ) -> None:
        """Measure one utterance.

        Args:
            model: in evaluation mode.
            samples: ``(S,)`` float32.
            n_units: units of its text, without ``<eos>``.
            spoken: begin and end of each unit in seconds.
        """
        speech, lengths = torch.from_numpy(samples)[None], torch.tensor([len(samples)])
        with torch.no_grad():
            hidden, n_frames = model.encode(speech, lengths)
            fired = model.decoder.fire(hidden, n_frames)
            first = peaks(model.ctc.argmax(hidden)[0].tolist())
        self.utterances += 1
        self.spread += spread(fired.alpha[0])
        right = int(fired.lengths[0]) == n_units + 1, len(first) == n_units
        for n, one in enumerate(right):
            self.right[n] += one
        if spoken is None:
            return
        begins, ends = spoken
        frames = frame_times(model, RATE, len(samples), int(n_frames[0]))
        if right[0]:
            fires = frames.seconds(fired.firing_times[0, :-1], len(samples) / RATE)
            self.fires.append(fires.numpy() - ends)
        if right[1]:
            centres = frames.centres(torch.tensor(first)).numpy()
            self.peaks.append(centres - (begins + ends) / 2)

    def row(self, times: bool) -> list[Any]:
        """Row of the table, with or without times."""
        cells: list[Any] = [round(float(np.mean(self.spread)), 2)]
        cells += [round(100 * right / self.utterances) for right in self.right]
        for errors in (self.fires, self.peaks) if times else ():
            if not errors:
                cells += ["–", "–"]
                continue
            low, middle, high = np.percentile(np.concatenate(errors), [5, 50, 95])
            cells += [f"{1e3 * middle:.0f}", f"{1e3 * low:.0f} to {1e3 * high:.0f}"]
        return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="experiment folders")
    parser.add_argument("--model", default="valid.acc.ave.pth")
    parser.add_argument("--set", default="dev", help="data directory in data/")
    parser.add_argument("--utterances", type=int, help="all by default")
    parser.add_argument("--peer", type=Path, help="a model of faster-whisper")
    parser.add_argument("--peer_utterances", type=int, default=80)
    args = parser.parse_args()

    import soundfile

    recordings = read_table(Path("data", args.set, "wav.scp"))
    texts = read_table(Path("data", args.set, "text"))
    chosen = list(recordings)[: args.utterances]
    exact = known_spans([recordings[utt] for utt in chosen])
    spoken = {utt: one for utt, one in zip(chosen, exact) if one is not None}
    print(describe("espnet", threads=torch.get_num_threads()) + "\n", flush=True)
    rows, boundaries = [], []
    for run in args.runs:
        recognizer = Recognizer(run / args.model)
        model = recognizer.speech2text.asr_model
        tokenizer = recognizer.speech2text.tokenizer
        found, errors = Found(), (Boundaries(), Boundaries())
        for utt in chosen:
            samples, _ = soundfile.read(recordings[utt], dtype="float32")
            units = tokenizer.text2tokens(texts[utt])
            found.add(model, samples, len(units), spoken.get(utt))
            if utt in spoken:
                free = recognizer.recognise(samples)
                if len(free.tokens) == len(units):
                    compare(timed(free), units, spoken[utt], errors[0])
                frames = recognizer.frames(samples)
                known_text = given(recognizer, frames, texts[utt])
                compare(timed(known_text), units, spoken[utt], errors[1])
        rows.append([run.name, *found.row(times=bool(spoken))])
        for name, one in zip(("recognised", "text given"), errors):
            boundaries.append([run.name, name, *one.row()])
    if args.peer is not None and spoken:
        peer, errors_of_peer = FasterWhisper(args.peer, "zh"), Boundaries()
        for utt in chosen[:: max(1, len(chosen) // args.peer_utterances)]:
            samples, _ = soundfile.read(recordings[utt], dtype="float32")
            words = [
                (one.text, one.start, one.end)
                for one in peer.words(samples, RATE)
                if len(one.text) == 1
            ]
            compare(words, list(texts[utt]), spoken[utt], errors_of_peer)
        row = ["faster-whisper", "recognised", *errors_of_peer.row()]
        boundaries.append(row)
    print(table(COUNTS + (TIMES if spoken else []), rows))
    if spoken:
        print("\n" + table(["run", "syllables", *HEAD], boundaries))


if __name__ == "__main__":
    main()
