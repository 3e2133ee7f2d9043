"""The gradient of each loss at the encoder: its norm and direction.

Loads a trained model with its own loss weights, and computes the gradient of each term
with respect to the encoder frames of utterances of dev, without dropout:

    cd egs2/hsk/asr_hkd; python3 ../../../benchmarks/loss_gradients.py \
        exp/ablation/hsk/asr_hkd_seed1 [--checkpoint 6epoch.pth] [--utterances 64]

``value``: the term per token, ``weighted``: with its weight in the loss; ``gradient``:
norm of the weighted term's gradient, relative to that of the cross-entropy; ``cosine``:
with the gradients of the cross-entropy and of CTC.
"""

import argparse
from pathlib import Path
from typing import Any

import measure
import soundfile
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from units import encoder

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.plugin import register

HEAD = ["loss", "value", "weighted", "gradient", "cosine: cross-entropy", "CTC"]
BATCH = 16


def batches(conf: dict[str, Any], data: Path, count: int) -> list[dict[str, Tensor]]:
    """The first utterances of a data folder, as the model takes them."""
    encode = encoder(conf["token_type"], conf["token_list"], conf["bpemodel"])
    recordings, texts = read_table(data / "wav.scp"), read_table(data / "text")
    keys = list(texts)[:count]
    found = []
    for first in range(0, len(keys), BATCH):
        some = keys[first : first + BATCH]
        speech = [torch.from_numpy(_read(recordings[key])) for key in some]
        text = [torch.tensor(encode(texts[key])) for key in some]
        found.append(
            {
                "speech": pad_sequence(speech, batch_first=True),
                "speech_lengths": torch.tensor([len(one) for one in speech]),
                "text": pad_sequence(text, batch_first=True, padding_value=-1),
                "text_lengths": torch.tensor([len(one) for one in text]),
            }
        )
    return found


def _read(path: str) -> Any:
    return soundfile.read(path, dtype="float32")[0]


class Terms:
    """The loss weights of a model, which can be set to one term at a time."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.weights: dict[str, float] = {
            "cross-entropy": 1.0,
            "CTC": model.ctc_weight,
            "quantity": model.quantity_weight,
        }
        self.levels: dict[str, dict[str, Any]] = {}
        if model.criterion is not None:
            for name in ("acoustic", "linguistic"):
                level = getattr(model.criterion, name)
                if level["weight"]:
                    self.levels[name] = level
                    self.weights[name] = level["weight"]

    def only(self, name: str | None) -> None:
        """Set all weights but this one's and the cross-entropy's, which is 1, to 0."""
        weights = self.weights
        self.model.ctc_weight = weights["CTC"] * (name == "CTC")
        self.model.quantity_weight = weights["quantity"] * (name == "quantity")
        for level, options in self.levels.items():
            # Not 0: the projection of this level would be unused.
            options["weight"] = weights[level] if name == level else 1e-30


def gradients(model: Any, batch: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Weighted sum over tokens and gradient ``(B·T·D,)`` of each term."""
    terms = Terms(model)
    frames: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        frames[:] = [output[0]]

    hook = model.encoder.register_forward_hook(keep)
    found = {}
    try:
        for name in terms.weights:
            terms.only(name)
            loss, _, n_tokens = model(**batch)
            (gradient,) = torch.autograd.grad(loss * n_tokens, frames[0])
            found[name] = (loss * n_tokens).detach(), gradient.flatten()
    finally:
        hook.remove()
        model.ctc_weight = terms.weights["CTC"]
        model.quantity_weight = terms.weights["quantity"]
        for level, options in terms.levels.items():
            options["weight"] = terms.weights[level]
    base, direction = found["cross-entropy"]
    rest = {
        name: (value - base, gradient - direction)
        for name, (value, gradient) in found.items()
        if name != "cross-entropy"
    }
    return {"cross-entropy": (base, direction), **rest}


def main() -> None:
    """Print a row for each term of the loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="experiment folder")
    parser.add_argument("--checkpoint", default="valid.acc.ave.pth")
    parser.add_argument("--data", type=Path, default=Path("dump/raw/dev"))
    parser.add_argument("--utterances", type=int, default=64)
    args = parser.parse_args()
    register()
    config = args.folder / "config.yaml"
    model, _ = ASRTask.build_model_from_file(config, args.folder / args.checkpoint)
    model.eval()
    conf = yaml.safe_load(config.read_text("utf-8"))
    values: dict[str, float] = {}
    parts: dict[str, list[Tensor]] = {}
    n_tokens = 0
    for batch in batches(conf, args.data, args.utterances):
        n_tokens += int(batch["text_lengths"].sum()) + len(batch["text"])
        for name, (value, gradient) in gradients(model, batch).items():
            values[name] = values.get(name, 0.0) + float(value)
            parts.setdefault(name, []).append(gradient)
    joined = {name: torch.cat(some) for name, some in parts.items()}
    weights = Terms(model).weights
    norm = joined["cross-entropy"].norm()
    print(measure.describe("espnet") + f"\n\n{args.folder / args.checkpoint}\n")
    rows: list[list[object]] = []
    for name, gradient in joined.items():
        cosines = [
            float(torch.cosine_similarity(gradient, joined[other], dim=0))
            for other in ("cross-entropy", "CTC")
        ]
        weighted = values[name] / n_tokens
        value = weighted / weights[name] if weights[name] else 0.0
        rows.append([name, value, weighted, float(gradient.norm() / norm), *cosines])
    print(measure.table(HEAD, rows))


if __name__ == "__main__":
    main()
