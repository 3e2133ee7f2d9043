"""The criterion ``frames`` against a loop over utterances, frames and teachers."""

import copy
import math

import pytest
import torch
from espnet_parts import HYBRID
from tiny_speech import RATE
from tone_teacher import (
    ALONE,
    DEVICE,
    ToneTeacher,
    host_model,
    pretrain_model,
    recordings_of,
    speech_batch,
    stored,
    texts_of,
    tone,
)

from espnet_cif_hkd.distill.frames import FramesCriterion
from espnet_cif_hkd.distill.heard import heard
from espnet_cif_hkd.distill.time_matching import TimeMatch
from espnet_cif_hkd.losses.frames import FRAME_LOSSES
from espnet_cif_hkd.teachers.speech.base import HIGHEST_PEAK, recording_key

STUDENT_OFFSET, STUDENT_STRIDE = 0.03, 0.04  # conv2d, hop of 10 ms


@pytest.fixture
def two(tmp_path):
    """Two stored teachers of different scale and width, and their batch."""
    batch = speech_batch()
    teachers = {
        "one": stored(tmp_path / "one", recordings_of(batch), teacher_conf={"seed": 1}),
        "two": stored(
            tmp_path / "two",
            recordings_of(batch),
            teacher_dim=4,
            teacher_conf={"seed": 2, "scale": 30.0},
        ),
    }
    teachers["two"]["weight"] = 0.5
    return teachers, batch


def naive_loss(model, name, batch, kind="l1"):
    """Sum over frames, frames, and errors, of one teacher: nothing is batched."""
    criterion = model.criteria["frames"]
    conf = next(one for one in criterion.options if one.name == name)
    teacher = ToneTeacher(conf.conf)
    vectors = [teacher.features([one], DEVICE)[0] for one in recordings_of(batch)]
    # Stored as float16; the statistics are those of all stored frames.
    vectors = [rows.half().float() for rows in vectors]
    every = torch.cat(vectors)
    mean, std = every.mean(0), every.std(0, correction=0)
    total, count = torch.zeros(()), 0
    hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    for frames, length, rows in zip(hs_pad, hlens, vectors, strict=True):
        for k in range(int(length)):
            place = (STUDENT_OFFSET + k * STUDENT_STRIDE - 0.0125) / 0.02
            before = math.floor(place)
            if place < 0 or before + 1 >= len(rows):
                continue
            share = place - before
            target = rows[before] * (1 - share) + rows[before + 1] * share
            if conf.normalize:
                target = (target - mean) / std
            head = criterion.heads[name]
            error = frames[k] @ head.weight.T + head.bias - target
            if kind == "l1":
                total = total + error.abs().mean()
            else:
                total = total + error.square().mean()
            count += 1
    return total, count


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_loss_and_gradient_equal_a_loop(two, kind):
    teachers, batch = two
    model = pretrain_model(teachers, loss=kind).train()
    loss, stats, weight = model(**batch)
    expected = 0
    for name, factor in (("one", 1.0), ("two", 0.5)):
        total, count = naive_loss(model, name, batch, kind)
        assert count > 20
        found = stats[f"frames.loss_{name}"].squeeze()
        torch.testing.assert_close(found, (total / count).detach())
        expected = expected + factor * total / count
    torch.testing.assert_close(loss.squeeze(), expected)
    assert int(weight) == int(
        model.encode(batch["speech"], batch["speech_lengths"])[1].sum()
    )
    ours = torch.autograd.grad(loss, model.parameters(), retain_graph=True)
    others = torch.autograd.grad(expected, model.parameters())
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "match"),
    [*((kind, "time") for kind in FRAME_LOSSES), ("l1", "mean"), ("l1", "concat")],
)
def test_each_loss_and_match_trains(two, kind, match):
    """Every parameter has a gradient, and 60 updates beat the constant predictor."""
    teachers, batch = two
    model = pretrain_model(teachers, loss=kind, match=match).train()
    made = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        made.zero_grad()
        loss, stats, _ = model(**batch)
        loss.backward()
        made.step()
    assert all(p.grad is not None for p in model.parameters())
    for name in ("one", "two"):
        assert stats[f"frames.loss_{name}"] < stats[f"frames.loss_trivial_{name}"]
        assert 0 < stats[f"frames.explained_{name}"] < 1
        assert 0 < stats[f"frames.cosine_{name}"] < 1
        assert 0.8 < stats[f"frames.coverage_{name}"] <= 1
        assert stats[f"frames.missing_{name}"] == 0
    width = model.criteria["frames"].heads["one"].out_features
    assert width == (12 if match == "concat" else 6)


def test_a_teacher_that_is_null_is_left_out(two):
    teachers, batch = two
    alone = pretrain_model({"one": teachers["one"]}).train()
    model = pretrain_model({**teachers, "two": None}).train()
    model.load_state_dict(alone.state_dict())
    torch.manual_seed(0)
    wanted, stats, _ = alone(**batch)
    torch.manual_seed(0)
    loss, others, _ = model(**batch)
    assert loss.item() == wanted.item()
    assert stats.keys() == others.keys()
    conf = {"type": "frames", "teachers": {**teachers, "two": None}}
    assert set(FramesCriterion.speech_teachers(conf)) == {"one"}


def test_targets_are_normalised_per_dimension(two):
    teachers, batch = two
    model = pretrain_model(teachers).train()
    model(**batch)
    criterion = model.criteria["frames"]
    for name in teachers:
        statistics = criterion.statistics[name]
        rows = ToneTeacher(teachers[name]).features(recordings_of(batch), DEVICE)
        every = torch.cat(rows)
        found = statistics.normalized(every)
        torch.testing.assert_close(
            found.mean(0), torch.zeros(found.size(1)), atol=1e-3, rtol=0
        )
        torch.testing.assert_close(
            found.std(0), torch.ones(found.size(1)), atol=1e-2, rtol=0
        )
        median = every.median(0).values
        torch.testing.assert_close(statistics.constant, median, atol=0.05, rtol=1e-2)
    raw = pretrain_model({n: {**t, "normalize": False} for n, t in teachers.items()})
    stats = raw.train()(**batch)[1]
    assert stats["frames.loss_two"] > 5 * stats["frames.loss_one"]


@pytest.mark.parametrize("recorded", [True, False])
def test_statistics_of_another_teacher_are_not_kept(two, tmp_path, recorded):
    """Such as from --init_param; a checkpoint of an earlier version is trusted."""
    teachers, batch = two
    other = stored(
        tmp_path / "other", recordings_of(batch), teacher_conf={"scale": 9.0}
    )
    first, fresh, moved = (
        pretrain_model({"one": one}).train() for one in (teachers["one"], other, other)
    )
    for model in (first, fresh):
        model(**batch)
    state = first.state_dict()
    if not recorded:
        del state["criteria.frames.statistics.one.teacher_digest"]
    moved.load_state_dict(state)
    moved(**batch)
    again, wanted = (
        one.criteria["frames"].statistics["one"]
        for one in (moved, fresh if recorded else first)
    )
    for name in ("mean", "std", "constant"):
        assert torch.equal(getattr(again, name), getattr(wanted, name))
    assert torch.equal(
        again.teacher_digest, fresh.criteria["frames"].statistics["one"].teacher_digest
    )


def test_the_trivial_predictor_is_the_loss_of_the_median(two):
    teachers, batch = two
    model = pretrain_model(teachers).train()
    stats = model(**batch)[1]
    head = model.criteria["frames"].heads["two"]
    statistics = model.criteria["frames"].statistics["two"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_((statistics.constant - statistics.mean) / statistics.std)
    again = model(**batch)[1]
    trivial = stats["frames.loss_trivial_two"]
    torch.testing.assert_close(again["frames.loss_two"], trivial)
    assert float(again["frames.explained_two"]) == pytest.approx(0, abs=1e-5)


def test_a_perfect_prediction_explains_everything():
    """The head has the teacher's own vectors as input."""
    batch = speech_batch()
    model = pretrain_model({"one": tone()}, loss="l2")
    criterion = model.criteria["frames"].train()
    rows = ToneTeacher(tone()).features(recordings_of(batch), DEVICE)
    lengths = torch.tensor([(len(one) - 2) // 2 for one in rows])
    match = TimeMatch(
        "time", *(criterion._matches["one"].__dict__[k] for k in ("student", "teacher"))
    )
    found = match.match(lengths.tolist(), [len(one) for one in rows])
    frames = torch.full((3, int(lengths.max()), 8), math.nan)
    with torch.no_grad():
        frames[found.utterances, found.frames] = torch.nn.functional.pad(
            found.targets(torch.cat(rows)), (0, 2)
        )
        criterion.heads["one"].weight.copy_(torch.eye(6, 8))
        criterion.heads["one"].bias.zero_()
    from espnet_cif_hkd.distill.taps import Taps

    none = torch.zeros(3, dtype=torch.int64)
    taps = Taps(frames, lengths, none[:, None], none)
    taps.speech, taps.speech_lengths = batch["speech"], batch["speech_lengths"]
    output = criterion(taps)
    assert float(output.losses["loss_one"].detach()) == pytest.approx(0, abs=1e-8)
    assert float(output.stats["explained_one"]) == pytest.approx(1)
    assert float(output.stats["cosine_one"]) == pytest.approx(1)


def test_padding_has_no_effect(two):
    """Neither on the loss nor on gradients, even if it is NaN."""
    teachers, batch = two
    model = pretrain_model(teachers).eval()
    criterion = model.criteria["frames"]
    seen = []
    criterion.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(**batch)
    taps = seen[0]
    clean = criterion(taps)
    valid = taps.valid(taps.hlens, taps.hs_pad)
    bad = copy.copy(taps)
    bad.hs_pad = taps.hs_pad.detach().masked_fill(~valid[..., None], math.nan)
    bad.hs_pad.requires_grad_()
    bad.speech = taps.speech.clone()
    for row, count in zip(bad.speech, taps.speech_lengths, strict=True):
        row[count:] = 0.7
    dirty = criterion(bad)
    for name, value in clean.losses.items():
        torch.testing.assert_close(dirty.losses[name], value)
    sum(dirty.losses.values()).backward()
    assert bad.hs_pad.grad[valid].any() and not bad.hs_pad.grad[~valid].any()
    assert all(p.grad.isfinite().all() for p in criterion.parameters())


def test_a_batch_equals_its_utterances(tmp_path):
    batch = speech_batch(quiet=True)
    one = {"one": stored(tmp_path / "s", recordings_of(batch))}
    model = pretrain_model(one, ALONE).eval()
    together = model(**batch)
    sums, frames = 0.0, 0.0
    for b in range(3):
        cut = {key: batch[key][b : b + 1] for key in ("speech", "speech_lengths")}
        stats = model(**cut)[1]
        count = float(stats["frames.coverage_one"] * model.encode(**cut)[1].sum())
        sums += float(stats["frames.loss_one"]) * count
        frames += count
    assert float(together[1]["frames.loss_one"]) == pytest.approx(sums / frames)


@pytest.mark.parametrize("combine", ["average", "random"])
def test_one_head_for_all_teachers(two, combine, tmp_path):
    teachers, batch = two
    same = dict(
        teachers,
        two=stored(tmp_path / "x", recordings_of(batch), teacher_conf={"seed": 3}),
    )
    model = pretrain_model(same, combine=combine).train()
    stats = model(**batch)[1]
    criterion = model.criteria["frames"]
    assert list(criterion.heads) == [combine]
    assert set(stats) >= {f"frames.loss_{combine}", "frames.missing_one"}
    seen = []
    criterion.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(**batch)
    recordings = heard(batch["speech"], batch["speech_lengths"].tolist(), RATE)
    from espnet_cif_hkd.distill.criterion import DistillOutput

    aims = {
        one.name: criterion._aim(
            one, recordings, seen[0].hlens.tolist(), seen[0].hs_pad, DistillOutput()
        )
        for one in criterion.options
    }
    if combine == "average":
        found = criterion._averaged(aims)
        weights = {one.name: one.weight for one in criterion.options}
        expected = sum(weights[n] * aim.targets for n, aim in aims.items()) / sum(
            weights.values()
        )
        torch.testing.assert_close(found.targets, expected)
        return
    shares = torch.zeros(2)
    for _ in range(200):
        found = criterion._drawn(aims, 3)
        assert sorted(set(found.utterances.tolist())) == [0, 1, 2]
        for b in range(3):
            mine = found.targets[torch.from_numpy(found.utterances == b)]
            equal = [
                mine.shape == rows.shape and torch.equal(mine, rows)
                for rows in (
                    aim.targets[torch.from_numpy(aim.utterances == b)]
                    for aim in aims.values()
                )
            ]
            assert sum(equal) == 1
            shares += torch.tensor(equal)
    assert float(shares[0] / shares.sum()) == pytest.approx(0.5, abs=0.1)
    model.eval()
    assert torch.equal(model(**batch)[0], model(**batch)[0])  # validation is fixed


@pytest.mark.parametrize("host", ["cif", "hybrid"])
@pytest.mark.parametrize("tap", ["hs_pad", "layer:1"])
def test_beside_a_recogniser(two, host, tap):
    """One stage: the losses are added to those of the recogniser."""
    teachers, batch = two
    criteria = {
        "frames": {"type": "frames", "teachers": teachers, "tap": tap, "weight": 0.3}
    }
    changes = HYBRID if host == "hybrid" else {}
    model = host_model(host, criteria, changes).train()
    plain = host_model(host, {}, changes).train()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("criteria")}
    )
    loss, stats, _ = model(**batch, **texts_of())
    alone = plain(**batch, **texts_of())[0]
    expected = alone + 0.3 * (stats["frames.loss_one"] + 0.5 * stats["frames.loss_two"])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(
        head.weight.grad.any() for head in model.criteria["frames"].heads.values()
    )


@pytest.mark.parametrize("scale", [1.0, 32768.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keys_are_those_of_the_recordings(scale, dtype):
    """ESPnet reads sound files with full scale 1, Kaldi's archives with 32768."""
    batch = speech_batch()
    codes = (batch["speech"] * 32768).round()
    speech = (codes / 32768 * scale).to(dtype)
    found = heard(speech, batch["speech_lengths"].tolist(), RATE, batch["utt_id"])
    for one, row, count in zip(found, codes, batch["speech_lengths"], strict=True):
        samples = (row[:count] / 32768).numpy()
        assert one.key == recording_key(samples)
        assert one.seconds == len(samples) / RATE
        torch.testing.assert_close(
            torch.from_numpy(one.samples), torch.from_numpy(samples)
        )
    assert [one.name for one in found] == batch["utt_id"]


@pytest.mark.parametrize("peak", [2.5, HIGHEST_PEAK])
def test_keys_beside_utterances_of_another_scale(peak):
    """A store has float samples up to this peak as they are."""
    batch = speech_batch()
    speech, lengths = batch["speech"], batch["speech_lengths"].tolist()
    speech[0] *= peak / speech[0].abs().max()
    rows = [row[:count].numpy() for row, count in zip(speech, lengths, strict=True)]
    expected = [recording_key(row) for row in rows]
    for scales in ([1, 1, 1], [1, 32768, 1]):
        scaled = speech * torch.tensor(scales)[:, None]
        found = heard(scaled, lengths, RATE)
        assert [one.key for one in found] == expected
        for one, row in zip(found, rows, strict=True):
            assert one.samples == pytest.approx(row, abs=1e-6)
