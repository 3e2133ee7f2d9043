"""A step of ``model: pretrain`` with stored targets, and that of its encoder alone.

The batch has 8 utterances of 12 s at 16 kHz. The encoder is a conformer with 12 blocks
of 256 dimensions and conv2d (25 frames a second). The targets are random vectors, 50
frames a second, in stores of 32 utterances.

    python3 benchmarks/pretrain_step.py [--teachers 512 1024] [--rounds 5]
        [--seconds 12] [--utterances 8] [--threads 2] [--device cpu] [--json FILE]

``encoder`` is forward and backward of the encoder from the sum of its frames;
``step`` is forward and backward of the model, with the keys of the audio, the reading
of the targets, matching, heads, losses and statistics. The two take turns. ``share`` is
the time of everything but the encoder, measured alone: encoder frames to loss, and
backward to those frames. ``1 + share / encoder`` is less sensitive to the noise of the
machine than ``step / encoder``.
"""

import argparse
import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.speech.base import Recording, SpeechTeacher
from espnet_cif_hkd.teachers.speech.registry import speech_teacher_choices
from espnet_cif_hkd.teachers.store.writer import dump_store

RATE = 16_000
STORED = 32


class Noise(SpeechTeacher):
    """Random vectors at the times of HuBERT."""

    def __init__(self, conf: Any):
        self.payload = Payload("frames", conf["teacher_dim"])

    @classmethod
    def from_conf(cls, conf: Any) -> "Noise":
        return cls(conf)

    @property
    def times(self) -> Any:
        from espnet_cif_hkd.cif.times import FrameTimes

        return FrameTimes(0.0125, 0.02)

    def open(self) -> "Noise":
        return self

    def features(self, recordings: Any, device: torch.device) -> list[torch.Tensor]:
        shapes = [
            (int(one.seconds / 0.02) - 1, self.payload.width) for one in recordings
        ]
        return [torch.randn(shape, device=device) for shape in shapes]

    def describe(self) -> dict[str, Any]:
        return {"type": "noise", "name": "noise"}

    def fingerprint(self, cache: Path | None = None) -> str:
        return "noise"


def waves(count: int, seconds: float) -> list[np.ndarray]:
    """Noise of 16 bits, (S,) float32 each."""
    rng = np.random.default_rng(0)
    size = round(seconds * RATE)
    codes = rng.integers(-3000, 3000, (count, size), dtype=np.int16)
    return [row.astype(np.float32) / 32768 for row in codes]


def build(teachers: dict[str, Any]) -> Any:
    """Build the model by ESPnet's task."""
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    config = ASRTask.get_default_config()
    config.update(
        token_list=["<blank>", "<unk>", "<sos/eos>"],
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
        decoder=None,
        model="pretrain",
        model_conf={"criteria": {"frames": {"type": "frames", "teachers": teachers}}},
        ctc_conf={},
    )
    return ASRTask.build_model(argparse.Namespace(**config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teachers", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    measure.add_options(parser)
    args = parser.parse_args()
    figures = measure.use_options(args)
    logging.disable(logging.WARNING)
    device = measure.device()
    print(measure.describe("espnet", threads=args.threads))
    speech_teacher_choices.classes["noise"] = Noise
    heard = waves(STORED, args.seconds)
    recordings = [Recording(wave, RATE) for wave in heard]
    with tempfile.TemporaryDirectory() as folder:
        teachers = {}
        for n, width in enumerate(args.teachers):
            conf = {
                "teacher_type": "noise",
                "teacher_dim": width,
                "teacher_store": f"{folder}/{n}",
            }
            teachers[f"teacher{n}"] = conf
            with contextlib.redirect_stderr(io.StringIO()):
                dump_store(
                    Path(folder, str(n)), lambda: recordings, Noise(conf), device
                )
        compare(build(teachers), heard, args, figures)


def compare(model: Any, heard: Any, args: Any, figures: measure.Figures) -> None:
    """Time the two steps, and print their ratio."""
    device = measure.device()
    model = model.to(device).train()
    criterion = model.criteria["frames"]
    speech = torch.tensor(np.stack(heard[: args.utterances]), device=device)
    batch = {
        "speech": speech,
        "speech_lengths": torch.full((len(speech),), speech.size(1), device=device),
    }
    seen: list[Any] = []
    hook = criterion.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(**batch)
    hook.remove()
    taps = seen[0]
    taps.hs_pad = taps.hs_pad.detach().requires_grad_()

    def encoder() -> None:
        model.encode(**batch)[0].sum().backward()

    def step() -> None:
        model(**batch)[0].backward()

    def share() -> None:
        sum(criterion(taps).losses.values()).backward()

    ways = {"encoder": encoder, "step": step, "share": share}
    found = measure.medians(measure.in_turns(ways, args.rounds))
    frames = int(taps.hlens.sum())
    ratios = {
        "step / encoder": found["step"] / found["encoder"],
        "1 + share / encoder": 1 + found["share"] / found["encoder"],
    }
    print(f"{frames} encoder frames, teachers of {args.teachers} dimensions")
    for name, value in found.items():
        print(f"{name:8} {1000 * value:9.1f} ms")
        figures.add(f"pretrain {name}", value, "s")
    for name, value in ratios.items():
        print(f"{name:20} {value:.3f}")
        figures.add(f"pretrain {name}", value, "ratio")


if __name__ == "__main__":
    main()
