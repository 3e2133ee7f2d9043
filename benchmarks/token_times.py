"""When CIF fires, against when the syllables were spoken; HSK, whose joints are known.

    cd egs2/hsk/asr_hkd; ./run.sh --system cif   # or any other training
    python3 ../../../benchmarks/token_times.py exp/asr_train_asr_cif_raw_zh_char …

Of utterances of dev, each encoded alone. ``frames a token``: over how many encoder
frames the weight of a fired vector is spread, (Σ w)² / Σ w², mean over tokens: 1 if one
frame alone makes it, n if n frames share it alike. ``fired right``: share of utterances
that fire as many tokens as they have characters (and ``<eos>``); of these ``fires``,
when a token fires after the end of its syllable. ``CTC right`` and ``CTC peak``: the
same of CTC's best path, whose first frame of a token is taken from the middle of its
syllable. Milliseconds: median, and the range from the 5th to the 95th hundredth.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import describe, table
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "egs2/hsk/asr_hkd/local")]

import hsk_packages  # noqa: E402
import hsk_voice  # noqa: E402
from hsk_sentences import read_sentences  # noqa: E402

from espnet_cif_hkd.cif import integrate_and_fire  # noqa: E402
from espnet_cif_hkd.recipe.kaldi_files import read_table  # noqa: E402

HEAD = ["run", "frames a token", "fired right, %", "fires, ms", "5 % to 95 %"]
HEAD += ["CTC right, %", "CTC peak, ms", "5 % to 95 %"]
Spans = dict[str, tuple[np.ndarray, np.ndarray]]


def spans(downloads: Path, names: Sequence[str]) -> Spans:
    """Beginning and end of each syllable, seconds, by the name of the sentence."""
    recordings = hsk_voice.Recordings(downloads / hsk_packages.VOICE.file)
    sentences, _ = read_sentences(downloads / hsk_packages.SENTENCES.file)
    known = {sentence.name: sentence for sentence in sentences}
    found = {}
    for name in names:
        samples: list[tuple[int, int]] = []
        hsk_voice.voice_sentence(recordings, known[name], spans=samples)
        begins, ends = np.array(samples).T / hsk_voice.RATE
        found[name] = begins, ends
    return found


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
    """What is known of one model so far."""

    def __init__(self) -> None:
        self.spread: list[float] = []
        self.fires: list[np.ndarray] = []
        self.peaks: list[np.ndarray] = []
        self.utterances = 0

    def add(self, model: Any, samples: np.ndarray, spoken: Any) -> None:
        """Look at one utterance.

        Args:
            model: in evaluation mode.
            samples: ``(S,)`` float32.
            spoken: beginning and end of its syllables, seconds.
        """
        begins, ends = spoken
        speech, lengths = torch.from_numpy(samples)[None], torch.tensor([len(samples)])
        with torch.no_grad():
            hidden, n_frames = model.encode(speech, lengths)
            fired = model.decoder.fire(hidden, n_frames)
            best = model.ctc.argmax(hidden)[0].tolist()
        shift = len(samples) / hsk_voice.RATE / int(n_frames[0])
        self.utterances += 1
        self.spread += spread(fired.alpha[0])
        if int(fired.lengths[0]) == len(ends) + 1:
            self.fires.append(fired.firing_times[0, :-1].numpy() * shift - ends)
        first = peaks(best)
        if len(first) == len(ends):
            middle = (begins + ends) / 2
            self.peaks.append((np.array(first) + 0.5) * shift - middle)

    def row(self) -> list[Any]:
        """Of the table."""
        cells: list[Any] = [round(float(np.mean(self.spread)), 2)]
        for errors in (self.fires, self.peaks):
            cells.append(round(100 * len(errors) / self.utterances))
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
    parser.add_argument("--utterances", type=int, help="of dev; all by default")
    args = parser.parse_args()

    import soundfile
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    recordings = read_table(Path("data/dev/wav.scp"))
    chosen = list(recordings)[: args.utterances]
    names = {utt: Path(recordings[utt]).stem for utt in chosen}
    spoken = spans(Path("downloads"), list(names.values()))
    print(describe("espnet", threads=torch.get_num_threads()) + "\n", flush=True)
    rows = []
    for run in args.runs:
        model, _ = ASRTask.build_model_from_file(
            str(run / "config.yaml"), str(run / args.model), "cpu"
        )
        model.eval()
        found = Found()
        for utt in chosen:
            samples, _ = soundfile.read(recordings[utt], dtype="float32")
            found.add(model, samples, spoken[names[utt]])
        rows.append([run.name, *found.row()])
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
