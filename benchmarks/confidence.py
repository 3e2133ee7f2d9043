"""Quality of confidences on data with transcripts: AUC, ECE, NCE, with intervals.

    cd egs2/fotaq/asr_hkd
    python3 -m espnet_cif_hkd.cli.calibrate --model exp/asr_… --data dump/raw/dev
    python3 ../../../benchmarks/confidence.py exp/asr_… --data dump/raw/test

Tokens and words; ``decoder``: the decoder's own probability, ``calibrated``: with
calibration.json. ``warnings``: the share of gaps with a missing token that have a
warning, or one in the gap before or after (an alignment of two texts does not know the
place exactly), and the share of gaps without a missing token there or beside (false
alarms). Intervals of 95 %
by drawing utterances again. ``--peer``: English words and their probabilities of
faster-whisper (see ``peer_whisper.py``).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from measure import describe, table
from peer_whisper import FasterWhisper
from quality import opened

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from espnet_cif_hkd.inference import fitting, gaps  # noqa: E402
from espnet_cif_hkd.inference.assemble import word_borders  # noqa: E402
from espnet_cif_hkd.inference.calibration import Calibration  # noqa: E402
from espnet_cif_hkd.inference.evidence import Evidence  # noqa: E402
from espnet_cif_hkd.io.audio import read_utterance, resample  # noqa: E402
from espnet_cif_hkd.io.tables import evenly, read_table, read_text  # noqa: E402

MEASURES = {
    "AUC": fitting.area_under_curve,
    "ECE": fitting.calibration_error,
    "NCE": fitting.normalized_cross_entropy,
}
Bools = fitting.Bools
# Of each gap: a warning, a missing token, a warning there or beside it.
Alarm = tuple[Bools, Bools, Bools]
Rated = tuple[np.ndarray, np.ndarray]


def cells(rated: list[Rated], draws: int) -> list[str]:
    """Value and interval of each measure."""
    rng = np.random.default_rng(0)
    found = []
    for measure in MEASURES.values():
        value = measure(*map(np.concatenate, zip(*rated)))
        drawn = []
        for _ in range(draws):
            picked = [rated[n] for n in rng.integers(len(rated), size=len(rated))]
            drawn.append(measure(*map(np.concatenate, zip(*picked))))
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
        found.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
    return found


def alarm(evidence: Evidence, missing: Bools, known: Calibration) -> list[Alarm]:
    """Warnings of each gap; nothing if there are none for this model."""
    values = gaps.features(evidence)
    if known.gaps is None or values is None:
        return []
    warned = known.gaps[0] + values @ known.gaps[1:] > known.limit
    return [(warned, missing, fitting.widened(warned))]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("dump/raw/test"))
    parser.add_argument("--utterances", type=int, default=400)
    parser.add_argument("--beam_size", type=int, help="default: greedy")
    parser.add_argument("--lm_train_config", help="with --beam_size")
    parser.add_argument("--lm_file", help="with --beam_size")
    parser.add_argument("--lm_weight", type=float, help="with --beam_size")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--peer", type=Path, help="a model of faster-whisper")
    args = parser.parse_args()

    print(describe("espnet", threads=1) + "\n", flush=True)
    of_lm = ("lm_train_config", "lm_file", "lm_weight")
    options = {name: getattr(args, name) for name in of_lm if getattr(args, name)}
    recognizer = opened(args.model, args.beam_size, **options)
    results = recognizer.results
    calibrations = {"decoder": Calibration(), "calibrated": results.calibration}
    tokenizer = recognizer.speech2text.tokenizer
    recordings, texts = read_table(args.data / "wav.scp"), read_text(args.data / "text")
    rated: dict[str, list[Rated]] = {}
    alarms: list[Alarm] = []
    peer = None if args.peer is None else FasterWhisper(args.peer, "en")
    for key in evenly(list(recordings), args.utterances):
        sound = read_utterance(key, recordings[key])
        samples = resample(sound.samples, sound.rate, recognizer.sampling_rate)
        frames = recognizer.frames(samples.astype(np.float32))
        if frames is None:
            continue
        if peer is not None:
            words = peer.words(samples, recognizer.sampling_rate)
            right, _ = fitting.right_tokens(
                [word.text for word in words], texts[key].split()
            )
            sure = np.array([word.probability for word in words], float)
            rated.setdefault("words, faster-whisper", []).append((sure, right))
        for name, calibration in calibrations.items():
            results.calibration = calibration
            [found] = recognizer.recognitions([frames])
            if not found.tokens:
                continue
            reference = tokenizer.text2tokens(texts[key])
            spelled = [word for word, _, _ in word_borders(list(texts[key]))]
            parts = {
                "tokens": ([one.token for one in found.tokens], reference),
                "words": ([one.text for one in found.words], spelled),
            }
            for kind, (here, there) in parts.items():
                right, missing = fitting.right_tokens(here, there)
                rows = found.tokens if kind == "tokens" else found.words
                sure = np.array([one.confidence for one in rows], float)
                rated.setdefault(f"{kind}, {name}", []).append((sure, right))
                if kind == "tokens" and name == "calibrated":
                    ids = [one.id for one in found.tokens]
                    alarms += alarm(results.evidence(frames, ids), missing, calibration)
    rows = [
        [kind, sum(len(one) for one, _ in values), *cells(values, args.draws)]
        for kind, values in sorted(rated.items())
    ]
    print(table(["confidences", "n", *MEASURES], rows))
    if alarms:
        warned, missing, close = map(np.concatenate, zip(*alarms))
        beside = fitting.widened(missing)
        print(
            f"\nwarnings: {100 * warned[missing].mean():.1f} % of {missing.sum()} gaps "
            f"with a missing token, {100 * close[missing].mean():.1f} % with a warning "
            f"there or beside, {100 * warned[~beside].mean():.1f} % of the others"
        )


if __name__ == "__main__":
    main()
