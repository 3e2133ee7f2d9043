"""Losses of levels by loops over utterances, frames and units, in float64."""

import copy

import pytest
import torch
from soft_levels import UNIT, TableLM
from tiny_model import TOKENS, tiny_batch, tiny_config
from tone_teacher import speech_batch

from espnet_cif_hkd.cif.naive import integrate_and_fire_naive
from espnet_cif_hkd.encoder.frames import frames_needed
from espnet_cif_hkd.losses.ctc_alignment_naive import ctc_alignment_naive
from espnet_cif_hkd.losses.soft_labels_naive import soft_label_loss_naive

CPU = torch.device("cpu")
ENCODER = {**tiny_config()["encoder_conf"], "num_blocks": 2}
SENTENCES = ("ABCDEF", "GABBA", "HEAD BAGGAGE")


def features(n_batch=3, seed=0):
    """Letters only: a unit does not see spaces at the ends of a text."""
    batch = tiny_batch(n_batch, seed=seed, dtype=torch.float64)
    batch["text"] = torch.where(batch["text"] == 2, 3, batch["text"])
    batch["utt_id"] = [f"utterance{n}" for n in range(n_batch)]
    return batch


def audio():
    """Recordings, their texts, and alignments of all but the last one."""
    batch = speech_batch((1.0, 0.7, 0.9), quiet=True)
    batch["speech"] = batch["speech"].double()
    ids = [[TOKENS.index("<space>" if c == " " else c) for c in s] for s in SENTENCES]
    text = torch.full((3, max(map(len, ids))), -1)
    for row, one in zip(text, ids, strict=True):
        row[: len(one)] = torch.tensor(one)
    return {**batch, "text": text, "text_lengths": torch.tensor([len(i) for i in ids])}


def stepped(model, batch):
    """The taps, the criterion's output and the loss of a training step."""
    seen = []
    criterion = model.criteria["lm"]
    hook = criterion.register_forward_hook(lambda *hooked: seen.append(hooked[1:]))
    loss, stats, _ = model(**copy.deepcopy(batch))
    hook.remove()
    return seen[0][0][0], seen[0][1], loss, stats


def frames_of(taps, tap, b):
    frames, lengths = taps.hs_pad, taps.hlens
    if tap != "hs_pad":
        layer = int(tap.split(":")[1])
        frames, lengths = taps.layers[layer], taps.layer_lens[layer]
    return frames[b, : int(lengths[b])]


class Naive:
    """Sums and counts of a level, utterance by utterance."""

    def __init__(self, model, name):
        self.head = model.criteria["lm"].heads[name]
        self.level = next(
            one for one in model.criteria["lm"].levels if one.name == name
        )
        self.teacher = TableLM(UNIT, {"top_k": 4})
        self.sums, self.counts = {}, {}

    def add(self, kind, value, count):
        self.sums[kind] = self.sums.get(kind, 0) + value
        self.counts[kind] = self.counts.get(kind, 0) + count

    def rows(self, vectors, units, places):
        """Soft and hard loss of vectors whose units are ``units[place]``."""
        labels = self.teacher.targets([units], CPU).tensors
        for vector, place in zip(vectors, places, strict=True):
            logits = self.head.output.weight @ vector + self.head.output.bias
            soft = soft_label_loss_naive(
                logits[None],
                labels["ids"][place][None],
                labels["probabilities"][place][None],
                self.level.options.student_temperature,
                self.level.options.square_temperature,
            )
            self.add("soft", soft.sum(), 1)
            self.add("hard", -logits.log_softmax(-1)[units[place]], 1)

    def alignment(self, frames, units, spans, times):
        chosen = []
        for k in range(len(frames)):
            centre = round(times.offset + k * times.stride, 6)
            inside = [n for n, (a, b) in enumerate(spans) if a <= centre < b]
            if inside:
                chosen.append((k, inside[0]))
        self.rows([frames[k] for k, _ in chosen], units, [n for _, n in chosen])

    def ctc(self, frames, units):
        if frames_needed(units) > len(frames):
            return
        logits = frames @ self.head.output.weight.T + self.head.output.bias
        logp = logits.log_softmax(-1)
        hard = torch.nn.functional.ctc_loss(
            logp[:, None], torch.tensor([units]), [len(frames)], [len(units)],
            reduction="sum",
        )  # fmt: skip
        at = ctc_alignment_naive(logp.detach(), units)
        if self.level.options.position == "middle":
            kept = {}
            for u in range(len(units)):
                run = [t for t, place in enumerate(at) if place == u]
                kept[run[(len(run) - 1) // 2]] = u
            at = [kept.get(t, -1) for t in range(len(at))]
        chosen = [(t, u) for t, u in enumerate(at) if u >= 0]
        self.rows([frames[t] for t, _ in chosen], units, [u for _, u in chosen])
        self.counts.pop("hard"), self.sums.pop("hard")
        self.ctc_hard = getattr(self, "ctc_hard", 0) + hard
        self.ctc_units = getattr(self, "ctc_units", 0) + len(units)

    def cif(self, frames, units):
        alpha = self.head.predictor(frames[None], torch.tensor([len(frames)]))
        length = torch.tensor([len(units)])
        self.add("quantity", (alpha.sum() - len(units)).abs(), len(units))
        if units:
            fired, _ = integrate_and_fire_naive(
                frames[None], alpha, torch.tensor([len(frames)]), length
            )
            self.rows(fired[0], units, range(len(units)))

    def result(self):
        if hasattr(self, "ctc_hard"):
            self.add("hard", self.ctc_hard, self.ctc_units)
        return self.sums, self.counts


def check(model, batch, name, expected, **shares):
    """Compare losses, counts, the total and the gradients of a step."""
    torch.manual_seed(3)
    taps, output, _, stats = stepped(model, batch)
    sums, counts = expected(taps)
    total, ours = 0, 0
    for kind, value in sums.items():
        loss = f"loss_{name}_{kind}"
        torch.testing.assert_close(output.losses[loss].double(), value.double())
        assert int(output.frames[loss]) == counts[kind] > 0
        weight = output.weights[loss]
        assert weight == pytest.approx(shares[kind])
        total = total + weight * value
        ours = ours + weight * output.losses[loss]
        logged = stats[f"lm.{loss}"]
        assert float(logged) == pytest.approx(
            float(value.detach()) / counts[kind], rel=1e-5
        )
    assert set(output.losses) == {f"loss_{name}_{kind}" for kind in sums}
    parameters = [p for p in model.parameters() if p.requires_grad]
    found, wanted = (
        torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        for value in (ours, total)
    )
    reached = 0
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
            reached += 1
    assert reached > 4
    return stats
