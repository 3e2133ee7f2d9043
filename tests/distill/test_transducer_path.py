"""The criterion ``transducer_path`` against a loop over utterances and nodes."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny_model import TOKENS, gradients
from tone_teacher import host_model, speech_batch, texts_of
from torch.utils._python_dispatch import TorchDispatchMode
from transducer_teacher import HOP, config_changes, save_teacher, student_of

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.distill import transducer_teacher as module
from espnet_cif_hkd.distill.transducer_path import student_nodes
from espnet_cif_hkd.losses import best_path
from espnet_cif_hkd.losses.rnnt_path_naive import best_path_naive
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search


def batch_of(**changes):
    return {**speech_batch(quiet=True), **texts_of(), **changes}


def lattice_of(model, samples, tokens):
    """All logits of one utterance, (T, U + 1, V)."""
    hs, _ = model.encode(samples[None], torch.tensor([len(samples)]))
    before = torch.cat([tokens.new_zeros(1), tokens])[None]
    states = model.decoder(before)
    return model.joint_network(hs[:, :, None], states[:, None])[0]


def naive_loss(student, teacher, batch, ratio=1, temperature=1.0, top_k=None, delay=0):
    """The sum over nodes, one after the other, and the number of nodes."""
    total, count = torch.zeros(()), 0
    for b, u in enumerate(batch["text_lengths"].tolist()):
        samples = batch["speech"][b, : batch["speech_lengths"][b]]
        tokens = batch["text"][b, :u]
        mine = lattice_of(student, samples, tokens)
        with torch.no_grad():
            theirs = lattice_of(teacher, samples, tokens)
        _, nodes, emits = best_path_naive(theirs.double(), tokens, len(theirs), u)
        # Frame t of the teacher is nearest to frame t / ratio of the student; of the
        # two that are equally near, the later one.
        frames = [min(int(t / ratio + 0.5) + delay, len(mine) - 1) for t, _ in nodes]
        for n, (t, state) in enumerate(nodes):
            if not emits[n] and n + 1 < len(nodes) and frames[n + 1] == frames[n]:
                continue
            q = (theirs[t, state] / temperature).softmax(-1)
            if top_k:
                q = torch.where(q >= q.sort().values[-top_k], q, 0.0)
                q = q / q.sum()
            logp = (mine[frames[n], state] / temperature).log_softmax(-1)
            total = total - (q * logp).sum()
            count += 1
    return total, count


@pytest.mark.parametrize(
    ("ratio", "options"),
    [
        (1, {}),
        (1, {"temperature": 2.0, "top_k": 4, "weight": 0.5}),
        (1, {"delay": 3}),
        (2, {}),
        (2, {"delay": 1}),
    ],
)
def test_loss_and_gradient_equal_a_loop(tmp_path, ratio, options):
    folder, teacher = save_teacher(tmp_path, HOP // ratio)
    student, batch = student_of(folder, **options).train(), batch_of()
    loss, stats, weight = student(**batch)
    plain = host_model("transducer", {}, config_changes()).train()
    plain.load_state_dict(student.state_dict(), strict=False)
    (other, *_), chosen = plain(**batch), dict(options)
    factor = chosen.pop("weight", 1.0)
    total, count = naive_loss(student, teacher, batch, ratio, **chosen)
    n_frames = student.encode(batch["speech"], batch["speech_lengths"])[1].sum()
    if not options.get("delay"):
        assert count == int(n_frames) + int(batch["text_lengths"].sum())
    torch.testing.assert_close(stats["path.loss_path"][0], (total / weight).detach()[0])
    torch.testing.assert_close(loss, other + factor * total / weight)
    parameters = list(student.parameters())
    expected = torch.autograd.grad(
        (factor * total / weight).sum(), parameters, materialize_grads=True
    )
    other.sum().backward()
    loss.sum().backward()
    ours, theirs = gradients(student), gradients(plain)
    for (name, _), value in zip(student.named_parameters(), expected, strict=True):
        torch.testing.assert_close(
            ours[name], theirs[name] + value, rtol=1e-4, atol=1e-6
        )


def test_a_split_of_the_batch_changes_nothing(tmp_path):
    """Padding and companions: each utterance alone gives the same sum of losses."""
    folder, _ = save_teacher(tmp_path)
    student, batch = student_of(folder).train(), batch_of()
    loss, stats, weight = student(**batch)
    loss.sum().backward()
    complete = gradients(student)
    student.zero_grad()
    total, parts = 0, 0
    for b in range(3):
        one = {
            "speech": batch["speech"][b : b + 1, : batch["speech_lengths"][b]],
            "speech_lengths": batch["speech_lengths"][b : b + 1],
            "text": batch["text"][b : b + 1, : batch["text_lengths"][b]],
            "text_lengths": batch["text_lengths"][b : b + 1],
        }
        alone, found, share = student(**one)
        total = total + alone * share / weight
        parts = parts + found["path.loss_path"] * share / weight
    torch.testing.assert_close(total, loss)
    torch.testing.assert_close(parts, stats["path.loss_path"])
    total.sum().backward()
    for name, value in gradients(student).items():
        torch.testing.assert_close(value, complete[name], rtol=1e-4, atol=1e-6)


def test_padding_may_be_anything(tmp_path):
    folder, _ = save_teacher(tmp_path)
    student = student_of(folder).train()
    taps = taps_of(student, batch_of())
    expected = student.criteria["path"](taps).losses["loss_path"]
    changed = copy.copy(taps)
    hidden = torch.arange(taps.hs_pad.size(1)) >= taps.hlens[:, None]
    changed.hs_pad = taps.hs_pad.masked_fill(hidden[..., None], torch.nan)
    late = torch.arange(taps.ys_pad.size(1)) >= taps.ys_pad_lens[:, None]
    changed.ys_pad = taps.ys_pad.masked_fill(late, 10**6)
    output = taps.states["output"]
    late = torch.nn.functional.pad(late, (1, 0))
    changed.states = {"output": output.masked_fill(late[..., None], torch.nan)}
    assert hidden.any() and late.any()
    found = student.criteria["path"](changed).losses["loss_path"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_texts_without_tokens(tmp_path):
    """The path has blanks only."""
    folder, _ = save_teacher(tmp_path)
    student = student_of(folder).train()
    empty = {"text": torch.zeros(3, 0).long(), "text_lengths": torch.zeros(3).long()}
    batch = batch_of(**empty)
    loss, stats, _ = student(**batch)
    loss.sum().backward()
    assert torch.isfinite(loss) and float(stats["path.loss_path"]) > 0


def test_a_student_like_its_teacher(tmp_path):
    folder, teacher = save_teacher(tmp_path)
    student = student_of(folder)
    student.load_state_dict(teacher.state_dict(), strict=False)
    _, stats, _ = student.train()(**batch_of())
    assert float(stats["path.kl_path"]) == pytest.approx(0, abs=1e-6)
    assert float(stats["path.acc_path"]) == 1
    _, stats, _ = student_of(folder).train()(**batch_of())
    assert float(stats["path.kl_path"]) > 0.1 and float(stats["path.acc_path"]) < 1


def taps_of(student, batch):
    """The taps of a training step."""
    kept = []
    hook = student.criteria["path"].register_forward_pre_hook(
        lambda _, given: kept.append(given[0])
    )
    student(**batch)
    hook.remove()
    return kept[0]


def test_bfloat16(tmp_path):
    """Under autocast the loss is float32, and so is the teacher."""
    folder, _ = save_teacher(tmp_path)
    student, batch = student_of(folder).train(), batch_of()
    _, expected, _ = student(**batch)
    (teacher, _) = student.criteria["path"]._teacher
    given = [batch[n] for n in ("speech", "speech_lengths", "text", "text_lengths")]
    exact = teacher.best_path(*given)
    with torch.autocast("cpu", torch.bfloat16):
        loss, stats, _ = student(**batch)
        found = teacher.best_path(*given)
    assert torch.equal(found.path.scores, exact.path.scores)
    loss.sum().backward()
    for name in ("path.loss_path", "path.kl_path"):
        assert stats[name].dtype == torch.float32
        torch.testing.assert_close(stats[name], expected[name], rtol=2e-2, atol=2e-2)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())


def test_float64(tmp_path):
    """ESPnet's prediction network cannot be float64; frames, states, joint can."""
    folder, _ = save_teacher(tmp_path)
    student = student_of(folder).train()
    taps = taps_of(student, batch_of())
    expected = student.criteria["path"](taps)
    taps.hs_pad, taps.speech = taps.hs_pad.double(), taps.speech.double()
    taps.states = {"output": taps.states["output"].double()}
    taps.joint = copy.deepcopy(student.joint_network).double()
    found = student.criteria["path"](taps).losses["loss_path"]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected.losses["loss_path"])


@pytest.mark.slow
def test_training_approaches_the_teacher(tmp_path):
    folder, _ = save_teacher(tmp_path)
    student, batch = student_of(folder, weight=10.0).train(), batch_of()
    made = torch.optim.Adam(student.parameters(), lr=0.01)
    first = None
    for _ in range(40):
        made.zero_grad()
        loss, stats, _ = student(**batch)
        loss.sum().backward()
        made.step()
        first = first or float(stats["path.kl_path"])
    assert float(stats["path.kl_path"]) < 0.7 * first


def test_the_teacher_is_frozen_and_in_no_checkpoint(tmp_path):
    folder, _ = save_teacher(tmp_path)
    student = student_of(folder).train()
    names = set(student.state_dict())
    student(**batch_of())[0].sum().backward()
    assert set(student.state_dict()) == names and not any("path" in n for n in names)
    (teacher, _) = student.criteria["path"]._teacher
    student.train()
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    before = torch.load(teacher.checkpoint, weights_only=True)
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_opening_the_teacher_draws_no_random_numbers(tmp_path):
    folder, _ = save_teacher(tmp_path)
    student, batch = student_of(folder).train(), batch_of()
    torch.manual_seed(5)
    student(**batch)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    student(**batch)  # opened before
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize(
    "options", [["--normalize", "none"], ["--ignore=x"]], ids=["known", "bad"]
)
def test_the_students_command_line_says_nothing_about_the_teacher(
    tmp_path, monkeypatch, options
):
    """An old teacher's configuration lacks options that the student's command has."""
    folder, _ = save_teacher(tmp_path)
    path = Path(folder) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config.pop("normalize", None)
    path.write_text(yaml.safe_dump(config))
    batch = batch_of()
    expected = student_of(folder)(**batch)[0]
    monkeypatch.setattr(sys, "argv", ["asr_train", *options])
    assert torch.equal(student_of(folder)(**batch)[0], expected)


def test_decoding_needs_no_teacher(tmp_path):
    """As if the folder were of another machine; a training is refused."""
    folder, _ = save_teacher(tmp_path)
    here, away = student_of(folder), student_of("/gone/teacher")
    away.load_state_dict(here.state_dict())
    batch = batch_of()
    found = []
    for model in (here.eval(), away.eval()):
        hs, hlens = model.encode(batch["speech"], batch["speech_lengths"])
        given = (model.decoder, model.joint_network, hs, hlens)
        found.append([one.yseq.tolist() for one in transducer_greedy_search(*given)])
    assert found[0] == found[1]


class Largest(TorchDispatchMode):
    """The largest number of elements of a result."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor):
                self.found = max(self.found, one.numel())
        return result


def test_memory_is_that_of_the_nodes(tmp_path, monkeypatch):
    """Neither the criterion nor its gradient has logits of the complete lattice."""
    vocab = [*TOKENS[:3], *(f"t{n}" for n in range(300)), TOKENS[-1]]
    folder, _ = save_teacher(tmp_path, token_list=vocab)
    student = student_of(folder, changes={"token_list": vocab}).train()
    text = torch.randint(3, 300, (3, 12))
    batch = batch_of(text=text, text_lengths=torch.tensor([12, 11, 12]))
    taps = taps_of(student, batch)
    n_nodes = int((taps.hlens + taps.ys_pad_lens).sum())
    lattice = 3 * taps.hs_pad.size(1) * 13 * len(vocab)
    monkeypatch.setattr(module, "_BLOCK_LOGITS", n_nodes * len(vocab))
    taps.hs_pad = taps.hs_pad.detach().requires_grad_()
    with Largest() as largest:
        output = student.criteria["path"](taps)
        output.losses["loss_path"].backward()
    assert taps.hs_pad.grad.any()
    assert largest.found <= n_nodes * len(vocab) < lattice / 3


def test_a_bound_on_the_gradient(tmp_path):
    """``max_share`` bounds the gradient at frames and states."""
    folder, _ = save_teacher(tmp_path)
    student = student_of(folder, max_share=0.1).train()
    student(**batch_of())[0].sum().backward()
    _, stats, _ = student(**batch_of())
    assert {"path.share_hs_pad", "path.share_states_output"} <= set(stats)


def test_one_teacher_teaches_two_students_of_other_kinds(tmp_path):
    """Streaming and not: the encoder of the student may be another one."""
    folder, _ = save_teacher(tmp_path)
    conf = {
        "input_layer": "linear",
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
        "pooling_layers": [1],  # 40 ms, the teacher has 20 ms
        "cnn_module_kernel": 3,
        "chunk_size": 4,
    }
    changes = {"encoder": "cif_conformer", "encoder_conf": conf}
    student = student_of(folder, changes=changes, delay=2).train()
    loss, stats, _ = student(**batch_of())
    loss.sum().backward()
    assert torch.isfinite(stats["path.loss_path"])
    assert all(p.grad is not None for p in student.parameters())


def test_nodes_of_a_faster_teacher():
    """Of four teacher frames in a student frame, the tokens of all and one blank."""
    logits = torch.zeros(1, 8, 3, 4)
    logits[0, 1, 0, 2] = logits[0, 6, 1, 3] = 9.0
    logits[0, :, :, 0] += 4.0
    lengths = torch.tensor([8]), torch.tensor([2])
    path = best_path(logits, torch.tensor([[2, 3]]), *lengths)
    assert path.emits[0].nonzero().flatten().tolist() == [1, 7]
    slow = FrameTimes(0.015, 0.04)
    frames, kept = student_nodes(path, FrameTimes(0.0, 0.01), slow, torch.tensor([2]))
    nodes = zip(frames[kept].tolist(), path.tokens[kept].tolist(), strict=True)
    assert list(nodes) == [(0, 0), (0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("shift", [0.0, 0.004, -0.004])
def test_nodes_of_equal_frames(shift):
    """Another centre by less than half a frame moves no node."""
    logits = torch.randn(2, 9, 5, 6)
    lengths = torch.tensor([9, 7]), torch.tensor([4, 2])
    path = best_path(logits, torch.ones(2, 4).long(), *lengths)
    times = FrameTimes(0.03 + shift, 0.04), FrameTimes(0.03, 0.04)
    frames, kept = student_nodes(path, *times, lengths[0])
    assert torch.equal(kept, path.valid)
    assert torch.equal(frames[kept], path.frames[kept])


@pytest.mark.parametrize("n_frames", [5, 8, 11])
@pytest.mark.parametrize("delay", [0, 2, 20])
def test_nodes_stay_within_the_student(n_frames, delay):
    """Each token is emitted once, in order, whatever the lengths of both."""
    logits = torch.randn(1, 8, 5, 6)
    lengths = torch.tensor([8]), torch.tensor([4])
    path = best_path(logits, torch.ones(1, 4).long(), *lengths)
    times = FrameTimes(0.01, 0.02)
    frames, kept = student_nodes(path, times, times, torch.tensor([n_frames]), delay)
    chosen, tokens = frames[kept], path.tokens[kept]
    assert chosen.max() < n_frames and (chosen.diff() >= 0).all()
    assert tokens.unique().tolist() == [0, 1, 2, 3, 4]
    assert int((path.emits & kept).sum()) == 4
    pairs = list(zip(chosen.tolist(), tokens.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs), "a node of the student is there twice"
