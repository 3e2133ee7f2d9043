"""Decoding time of the CIF decoder and of ESPnet's Transformer decoder.

    python3 benchmarks/decoding.py                     # about four minutes
    python3 benchmarks/decoding.py --parts single --seconds 30 --repeats 7
    python3 benchmarks/decoding.py --parts batches --batch 16   # ESPnet 202611
    python3 benchmarks/decoding.py --parts greedy --profile

Both models have the encoder of AISHELL-1's recipe, two decoder blocks of the same size,
4,233 units and random weights. Both run in the same ``Speech2Text`` with beam 10 and do
the same work: the predictor's bias is set for each recording so that 3 tokens fire per
second, and both searches take one step for each token and one for ``<eos>``
(``maxlenratio`` is minus that number). The Transformer cannot choose ``<eos>`` earlier,
so all ten hypotheses continue to the end, as the ending rule of CIF requires.

``search`` is the search on encoder frames, which for CIF includes the predictor and the
firing. ``total`` is ``Speech2Text`` on samples, and its real-time factor.

Speech is read from ``--wav_scp``, by default the test set of the FOTAQ recipe, and cut
or joined to the length. Without it noise of that length is decoded, and the table says
so.
"""

import argparse
import cProfile
import functools
import logging
import pstats
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch
from measure import (
    Figures,
    add_options,
    describe,
    device,
    in_turns,
    medians,
    table,
    use_options,
)

from espnet_cif_hkd import Speech2Text
from espnet_cif_hkd.plugin.compat import ESPNET_RELEASE
from espnet_cif_hkd.search.greedy import greedy_search

RATE = 16000
TOKENS_PER_SECOND = 3
BEAM = 10
SCP = Path(__file__).parents[1] / "egs2/fotaq/asr_hkd/data/test/wav.scp"
PARTS = ("single", "greedy", "batches")
Way = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", nargs="+", type=float, default=(2, 5, 15))
    parser.add_argument("--ctc_weight", nargs="+", type=float, default=(0.0, 0.3))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wav_scp", type=Path, default=SCP)
    parser.add_argument("--profile", action="store_true", help="and no tables")
    add_options(parser)
    args = parser.parse_args()
    figures = use_options(args)
    logging.disable(logging.WARNING)
    machine = describe("espnet", "espnet-cif-hkd", threads=args.threads)
    speech = read_speech(args.wav_scp, max(*args.seconds, 8) * args.batch)
    heard = "noise: no --wav_scp" if speech is None else "speech"
    print(f"{machine}; {heard}\n")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), speech, args.repeats, args.profile, figures)
        if "single" in args.parts:
            bench.single(args.seconds, args.ctc_weight)
        if "greedy" in args.parts:
            bench.greedy(args.seconds)
        if "batches" in args.parts:
            bench.batches(args.batch, args.ctc_weight)


def read_speech(wav_scp: Path, seconds: float) -> np.ndarray | None:
    """Samples of enough recordings, joined; None without a table."""
    if not wav_scp.is_file():
        return None
    import soundfile
    from torchaudio.functional import resample

    parts: list[np.ndarray] = []
    for line in wav_scp.read_text().splitlines():
        samples, rate = soundfile.read(line.split()[1], dtype="float32")
        parts.append(resample(torch.from_numpy(samples), rate, RATE).numpy())
        if sum(map(len, parts)) >= seconds * RATE:
            break
    return np.concatenate(parts)


class Bench:
    """The models and their measurements."""

    def __init__(
        self,
        folder: Path,
        speech: np.ndarray | None,
        repeats: int,
        profile: bool,
        figures: Figures,
    ) -> None:
        self.speech = speech
        self.repeats = repeats
        self.profile = profile
        self.figures = figures
        self.files = {
            name: models.write_experiment(name, folder / name)
            for name in ("cif", "transformer")
        }

    def recogniser(self, name: str, n_steps: int = 0, **options: Any) -> Speech2Text:
        """``Speech2Text`` with a search of ``n_steps`` steps; 0: without a limit."""
        options = {"beam_size": BEAM, "ctc_weight": 0.0, "lm_weight": 0.0, **options}
        built = Speech2Text(
            *map(str, self.files[name]),
            device=str(device()),
            maxlenratio=-float(n_steps),
            **options,
        )
        if name == "transformer":
            with torch.no_grad():
                built.asr_model.decoder.output_layer.bias[built.asr_model.eos] = -1e4
        return built

    def time(
        self, what: str, ways: dict[str, Way], repeats: int | None = None
    ) -> dict[str, float]:
        """Median seconds of each way, recorded as figures."""
        spent = medians(in_turns(ways, repeats or self.repeats))
        for name, seconds in spent.items():
            self.figures.add(f"{what}: {name}", 1000 * seconds, "ms")
        return spent

    def samples(self, seconds: float, offset: float = 0.0) -> np.ndarray:
        n, first = int(seconds * RATE), int(offset * RATE)
        if self.speech is None:
            noise = np.random.default_rng(0).normal(0, 0.1, first + n)
            return noise[first:].astype(np.float32)
        return np.resize(self.speech[first:], n)

    def single(self, lengths: list[float], ctc_weights: list[float]) -> None:
        """Both decoders, one utterance at a time."""
        shown = Table(
            "One utterance at a time, beam 10: milliseconds of a step of the search, "
            "total real-time factor",
            [
                *("audio", "CTC weight", "search: CIF", "Transformer", "times faster"),
                *("total: CIF", "Transformer", "times faster"),
            ],
        )
        for seconds in lengths:
            samples = self.samples(seconds)
            n_steps = round(TOKENS_PER_SECOND * seconds) + 1
            for ctc_weight in ctc_weights:
                ways: dict[str, Way] = {}
                for name in self.files:
                    recogniser = self.recogniser(name, n_steps, ctc_weight=ctc_weight)
                    if name == "cif":
                        set_firing(recogniser, samples, n_steps - 1)
                    ways[f"{name} search"] = searching(recogniser, samples)
                    ways[f"{name} total"] = functools.partial(recogniser, samples)
                if self.profile:
                    show_profiles(ways, "search")
                    continue
                spent = self.time(
                    f"{seconds:g} s, beam 10, CTC weight {ctc_weight:g}", ways
                )
                ours, peer = spent["cif search"], spent["transformer search"]
                shown.row(
                    f"{seconds:g} s, {n_steps} steps",
                    ctc_weight,
                    *(1000 * ours / n_steps, 1000 * peer / n_steps, peer / ours),
                    *(spent[f"{n} total"] / seconds for n in self.files),
                    spent["transformer total"] / spent["cif total"],
                )

    def greedy(self, lengths: list[float]) -> None:
        """Our greedy search, ESPnet's beam 1 and beam 10."""
        shown = Table(
            "Greedy search: milliseconds of the search, total real-time factor",
            [
                *("audio", "search: greedy", "ESPnet, beam 1", "ESPnet, beam 10"),
                *("greedy times faster than beam 10", "total: greedy"),
                *("ESPnet, beam 1", "ESPnet, beam 10"),
            ],
        )
        for seconds in lengths:
            samples = self.samples(seconds)
            n_tokens = round(TOKENS_PER_SECOND * seconds)
            recognisers = {
                "greedy": self.recogniser("cif", greedy=True, beam_size=1),
                "beam 1": self.recogniser("cif", beam_size=1),
                "beam 10": self.recogniser("cif"),
            }
            ways: dict[str, Way] = {}
            for name, recogniser in recognisers.items():
                set_firing(recogniser, samples, n_tokens)
                ways[f"{name} search"] = searching(recogniser, samples)
                ways[f"{name} total"] = functools.partial(recogniser, samples)
            texts = [recognisers[n](samples)[0][0] for n in ("greedy", "beam 1")]
            if texts[0] != texts[1]:
                raise SystemExit(f"greedy and beam 1 differ: {texts}")
            if self.profile:
                show_profiles(ways, "greedy search")
                continue
            spent = self.time(f"{seconds:g} s, greedy and beams", ways)
            shown.row(
                f"{seconds:g} s, {n_tokens} tokens",
                *(1000 * spent[f"{name} search"] for name in recognisers),
                spent["beam 10 search"] / spent["greedy search"],
                *(spent[f"{name} total"] / seconds for name in recognisers),
            )

    def batches(self, n_batch: int, ctc_weights: list[float]) -> None:
        """Utterances of 3 to 7 s in one batch and one at a time."""
        lengths = [3 + 4 * n / max(1, n_batch - 1) for n in range(n_batch)]
        waves = [self.samples(s, offset=8.0 * n) for n, s in enumerate(lengths)]
        n_tokens = [round(TOKENS_PER_SECOND * seconds) for seconds in lengths]
        tried: list[tuple[str, float, dict[str, Any]]] = []
        if ESPNET_RELEASE >= "202611":
            tried += [
                (name, weight, {}) for name in self.files for weight in ctc_weights
            ]
        else:
            print("ESPnet 202511 decodes one utterance at a time: greedy only\n")
        tried.append(("cif", 0.0, {"greedy": True, "beam_size": 1}))
        shown = Table(
            f"{n_batch} utterances of 3 to 7 s: utterances per second",
            ["what", "one at a time", "together", "times faster"],
        )
        wants_encoder = not self.profile
        for name, ctc_weight, options in tried:
            steps = 0 if name == "cif" else max(n_tokens) + 1
            recogniser = self.recogniser(name, steps, ctc_weight=ctc_weight, **options)
            if name == "cif":
                set_firing(recogniser, waves[n_batch // 2], n_tokens[n_batch // 2])
            frames = encode(recogniser, waves)
            one_by_one = [
                (recogniser, hs[None, :n], n[None])
                for hs, n in zip(*frames, strict=True)
            ]
            label = f"greedy, {name}" if options else f"beam 10, {name}"
            ways: dict[str, dict[str, Way]] = {
                f"search: {label}, CTC weight {ctc_weight:g}": {
                    "alone": functools.partial(map_all, search, one_by_one),
                    "together": functools.partial(search, recogniser, *frames),
                }
            }
            if name == "cif" and ctc_weight == 0.0:
                ways[f"total: {label}"] = {
                    "alone": functools.partial(
                        map_all, recogniser, [(wave,) for wave in waves]
                    ),
                    "together": functools.partial(recogniser, waves),
                }
            if wants_encoder:
                wants_encoder = False
                ways["encoder"] = {
                    "alone": functools.partial(
                        map_all, encode, [(recogniser, [wave]) for wave in waves]
                    ),
                    "together": functools.partial(encode, recogniser, waves),
                }
            for what, two in ways.items():
                if self.profile:
                    show_profiles(
                        {f"{what}, {n}": way for n, way in two.items()}, "search"
                    )
                    continue
                repeats = self.repeats if what.startswith("search") else 1
                spent = self.time(f"{n_batch} utterances, {what}", two, repeats)
                alone, together = spent["alone"], spent["together"]
                shown.row(what, n_batch / alone, n_batch / together, alone / together)


def map_all(way: Callable[..., object], arguments: list[tuple[Any, ...]]) -> None:
    for each in arguments:
        way(*each)


def set_firing(recogniser: Speech2Text, samples: np.ndarray, n_tokens: int) -> None:
    """Set the predictor's bias so that ``n_tokens`` fire."""
    hs_pad, hlens = encode(recogniser, [samples])
    decoder = recogniser.asr_model.decoder
    low, high = -20.0, 20.0
    for _ in range(60):
        decoder.predictor.output.bias.data.fill_((low + high) / 2)
        with torch.no_grad():
            fired = int(decoder.fire(hs_pad, hlens).lengths)
        if fired == n_tokens:
            return
        low, high = (
            ((low + high) / 2, high) if fired < n_tokens else (low, (low + high) / 2)
        )
    raise SystemExit(f"no bias fires {n_tokens} tokens, but {fired}")


@torch.no_grad()
def encode(
    recogniser: Speech2Text, waves: list[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder frames of utterances, and the number of valid ones."""
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(wave) for wave in waves], batch_first=True
    ).to(device())
    lengths = torch.tensor([len(wave) for wave in waves], device=device())
    frames: tuple[torch.Tensor, torch.Tensor] = recogniser.asr_model.encode(
        padded, lengths
    )
    return frames


@torch.no_grad()
def search(recogniser: Speech2Text, hs_pad: torch.Tensor, hlens: torch.Tensor) -> Any:
    """The search of a recogniser over encoder frames; one utterance has no padding."""
    if recogniser.greedy:
        decoder = recogniser.asr_model.decoder
        return greedy_search(decoder, hs_pad, hlens, recogniser.maxlenratio)
    bounds = {"maxlenratio": recogniser.maxlenratio, "minlenratio": 0.0}
    if hs_pad.size(0) == 1:
        return recogniser.beam_search(x=hs_pad[0], **bounds)
    return recogniser.beam_search(x=hs_pad, x_lengths=hlens, **bounds)


def searching(recogniser: Speech2Text, samples: np.ndarray) -> Way:
    return functools.partial(search, recogniser, *encode(recogniser, [samples]))


class Table:
    """A table that is printed row by row, because a run may be long."""

    def __init__(self, title: str, head: list[str]) -> None:
        self.title = title
        self.head = head
        self.begun = False

    def row(self, *cells: Any) -> None:
        lines = table(self.head, [cells]).splitlines()
        if not self.begun:
            print(f"\n{self.title}\n")
        print("\n".join(lines[2:] if self.begun else lines), flush=True)
        self.begun = True


def show_profiles(ways: dict[str, Way], kind: str) -> None:
    """Print the time of each function of each alternative."""
    for name, way in ways.items():
        if kind in name:
            way()
            profiler = cProfile.Profile()
            profiler.runcall(way)
            print(f"== {name}")
            pstats.Stats(profiler).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()
