"""A training step of ``model: cif`` with three levels of soft labels, and without.

The encoder is a conformer with 12 blocks of 256 dimensions and conv2d (25 frames a
second). Units and their labels are random, in stores: 12 states a second on layer 4
(``map: alignment``), 8 characters a second on layer 8 (``map: ctc``), and the
recogniser's own tokens on the output (``map: cif``). top_k is 8.

    python3 benchmarks/soft_labels_step.py [--rounds 5] [--seconds 6] [--utterances 4]
        [--device cpu] [--json FILE]

``without`` and ``with`` are forward and backward of the model, and take turns; the
ratio is the median of the ratios of the rounds. ``levels`` is the criterion alone, with
the reading of its stores: from the taps to its losses, and backward to the taps. On a
CPU the time is that of the process with one thread, so that other processes hardly
change it.
"""

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

from espnet_cif_hkd.distill import Sentences, SoftLabelsCriterion

RATE = 16_000
STATES, CHARS, TOKENS = 300, 40, 500
PER_SECOND = {"states": 12, "chars": 8, "tokens": 4}


def names(prefix: str, count: int) -> list[str]:
    """Token list of ``count`` units."""
    units = [f"{prefix}{n}" for n in range(count)]
    return ["<blank>", "<unk>", *units, "<sos/eos>"]


def letters() -> list[str]:
    """Token list of characters, two of which spell a token of the recogniser."""
    marks = [chr(0x4E00 + n) for n in range(CHARS)]
    return ["<blank>", "<unk>", *marks, "<sos/eos>"]


def words() -> list[str]:
    """Token list of the recogniser: words of two characters."""
    rng = np.random.default_rng(1)
    marks = letters()[2:-1]
    pairs = {"".join(rng.choice(marks, 2)) for _ in range(2 * TOKENS)}
    return ["<blank>", "<unk>", *sorted(pairs)[:TOKENS], "<sos/eos>"]


def levels_of(folder: Path) -> dict[str, Any]:
    """The options of the three levels."""
    lm = {"lm_type": "uniform", "top_k": 8}
    files = {"states": names("s", STATES), "chars": letters()}
    for name, tokens in files.items():
        (folder / f"{name}.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return {
        "states": {
            "tap": "layer:4",
            "unit": "aligned",
            "map": "alignment",
            "unit_token_list": str(folder / "states.txt"),
            "alignment": str(folder / "states.ctm"),
            "label_store": str(folder / "states"),
            **lm,
        },
        "chars": {
            "tap": "layer:8",
            "unit": "char",
            "map": "ctc",
            "max_missing": 100,
            "unit_token_list": str(folder / "chars.txt"),
            "label_store": str(folder / "chars"),
            **lm,
        },
        "tokens": {
            "tap": "hs_pad",
            "unit": "token",
            "map": "cif",
            "label_store": str(folder / "tokens"),
            **lm,
        },
    }


def batch_of(folder: Path, seconds: float, count: int) -> dict[str, Any]:
    """Noise with random texts, and random alignments of states in a CTM file."""
    rng = np.random.default_rng(0)
    size, n_tokens = round(seconds * RATE), round(seconds * PER_SECOND["tokens"])
    n_states = round(seconds * PER_SECOND["states"])
    lines = []
    for b in range(count):
        step = seconds / n_states
        for n, state in enumerate(rng.integers(0, STATES, n_states)):
            lines.append(f"utt{b} 1 {n * step:.4f} {step:.4f} s{state}\n")
    (folder / "states.ctm").write_text("".join(lines), encoding="utf-8")
    text = rng.integers(2, TOKENS + 2, (count, n_tokens))
    made = {
        "speech": 0.1 * rng.standard_normal((count, size)).astype(np.float32),
        "speech_lengths": np.full(count, size),
        "text": text,
        "text_lengths": np.full(count, n_tokens),
    }
    batch: dict[str, Any] = {
        name: torch.from_numpy(array).to(measure.device())
        for name, array in made.items()
    }
    return {**batch, "utt_id": [f"utt{b}" for b in range(count)]}


def build(criteria: dict[str, Any]) -> Any:
    """Build the model by ESPnet's task; always the same parameters."""
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    config = ASRTask.get_default_config()
    config.update(
        token_list=words(),
        frontend_conf={"fs": RATE, "hop_length": 160},
        normalize="utterance_mvn",
        normalize_conf={},
        encoder="conformer",
        encoder_conf={
            "output_size": 256,
            "attention_heads": 4,
            "linear_units": 1024,
            "num_blocks": 12,
            "macaron_style": True,
            "rel_pos_type": "latest",
            "pos_enc_layer_type": "rel_pos",
            "selfattention_layer_type": "rel_selfattn",
            "cnn_module_kernel": 31,
        },
        decoder="cif",
        model="cif",
        model_conf={"criteria": criteria},
        ctc_conf={},
    )
    torch.manual_seed(0)
    model = ASRTask.build_model(argparse.Namespace(**config))
    return model.to(measure.device()).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--utterances", type=int, default=4)
    measure.add_options(parser)
    args = parser.parse_args()
    figures = measure.use_options(args)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(measure.describe("espnet", threads=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        levels = levels_of(folder)
        batch = batch_of(folder, args.seconds, args.utterances)
        sentences = Sentences(
            batch["text"].tolist, words(), "word", torch.device("cpu")
        )
        options = {"levels": levels, "token_type": "word"}
        for store in SoftLabelsCriterion.stores(options):
            with contextlib.redirect_stderr(io.StringIO()):
                SoftLabelsCriterion.fill(options, store, sentences)
        lm = {"type": "soft_labels", **options}
        compare(build({}), build({"lm": lm}), batch, args.rounds, figures)


def compare(
    plain: Any,
    taught: Any,
    batch: dict[str, Any],
    rounds: int,
    figures: measure.Figures,
) -> None:
    """Time both steps and the criterion alone, and print the ratios."""
    criterion = taught.criteria["lm"]
    seen: list[Any] = []
    hook = criterion.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    taught(**batch)
    hook.remove()
    taps = seen[0]
    taps.hs_pad = taps.hs_pad.detach().requires_grad_()
    taps.layers = {n: x.detach().requires_grad_() for n, x in taps.layers.items()}

    def levels() -> None:
        sum(criterion(taps).losses.values()).backward()

    ways = {
        "without": lambda: plain(**batch)[0].backward(),
        "with": lambda: taught(**batch)[0].backward(),
        "levels": levels,
    }
    times = measure.in_turns(ways, rounds, clock=measure.own_clock())
    found = measure.medians(times)
    pairs = zip(times["with"], times["without"], strict=True)
    ratios = {
        "with / without": statistics.median(a / b for a, b in pairs),
        "1 + levels / without": 1 + found["levels"] / found["without"],
    }
    units = {name: int(count) for name, count in _counts(taught, taps)}
    print(f"{int(taps.hlens.sum())} encoder frames; rows that learn: {units}")
    for name, value in found.items():
        print(f"{name:8} {1000 * value:9.1f} ms")
        figures.add(f"soft labels {name}", value, "s")
    for name, value in ratios.items():
        print(f"{name:22} {value:.3f}")
        figures.add(f"soft labels {name}", value, "ratio")


def _counts(model: Any, taps: Any) -> list[tuple[str, Any]]:
    """Return the number of rows of each loss."""
    output = model.criteria["lm"](taps)
    return [(name, count) for name, count in output.frames.items() if "soft" in name]


if __name__ == "__main__":
    main()
