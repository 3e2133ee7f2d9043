"""The criterion ``soft_labels`` against loops over utterances in float64."""

import copy

import pytest
import torch
from level_loops import ENCODER, Naive, audio, check, features, frames_of, stepped
from soft_levels import chars, criteria, spans_of, texts_of, to_unit, write_ctm
from tiny_model import TOKENS, slice_batch, tiny_batch, tiny_model
from tone_teacher import ALONE, host_model

from espnet_cif_hkd.distill.level_options import HARD

OPTIONS = [
    {},
    {"student_temperature": 2.0},
    {"student_temperature": 2.0, "square_temperature": True, "soft": 0.25},
]


@pytest.mark.parametrize("tap", ["layer:1", "hs_pad"])
@pytest.mark.parametrize("options", [*OPTIONS, {"position": "middle"}])
def test_ctc(tmp_path, tap, options):
    level = chars(tmp_path, tap, map="ctc", **options)
    model = tiny_model(encoder_conf=ENCODER, model_conf=criteria({"low": level}))
    model, batch = model.double().train(), features()
    naive = Naive(model, "low")

    def expected(taps):
        for b, text in enumerate(texts_of(batch)):
            naive.ctc(frames_of(taps, tap, b), to_unit(text))
        return naive.result()

    soft = options.get("soft", 0.5)
    stats = check(model, batch, "low", expected, soft=0.3 * soft, hard=0.3 * (1 - soft))
    assert 0 < float(stats["lm.coverage_low"]) < 1
    assert stats["lm.left_out_low"] == 0


@pytest.mark.parametrize("options", [*OPTIONS, {"hard": "none"}, {"soft": 1.0}])
def test_cif(tmp_path, options):
    level = chars(
        tmp_path, "layer:1", map="cif", quantity_weight=0.5, weight=2.0,
        predictor_conf={"dropout_rate": 0.0}, **options,
    )  # fmt: skip
    model = tiny_model(encoder_conf=ENCODER, model_conf=criteria({"own": level}))
    model, batch = model.double().train(), features()
    naive = Naive(model, "own")

    def expected(taps):
        for b, text in enumerate(texts_of(batch)):
            naive.cif(frames_of(taps, "layer:1", b), to_unit(text))
        sums, counts = naive.result()
        if "hard" in options or options.get("soft") == 1:
            sums.pop("hard")
        return sums, counts

    soft = options.get("soft", 0.5)
    shares = {"soft": 2 * soft, "hard": 2 * (1 - soft), "quantity": 1.0}
    check(model, batch, "own", expected, **shares)


def phones(folder, batch, **options):
    """Alignments of all utterances but the last, and a level that learns them."""
    aligned = {
        name: (to_unit(text), spans_of(text, 0.8))
        for name, text in zip(batch["utt_id"][:-1], texts_of(batch), strict=False)
    }
    ctm = write_ctm(folder / "units.ctm", aligned)
    way = {"map": "alignment", "alignment": ctm, "max_missing": 50}
    return aligned, chars(folder, "layer:1", **way, **options)


@pytest.mark.parametrize("options", [*OPTIONS, {"hard": "none"}])
def test_alignment(tmp_path, options):
    batch = audio()
    aligned, level = phones(tmp_path, batch, **options)
    model = host_model("cif", criteria({"phone": level})["criteria"], ALONE)
    model = model.double().train()
    naive = Naive(model, "phone")

    def expected(taps):
        for b, name in enumerate(batch["utt_id"]):
            if name in aligned:
                frames = frames_of(taps, "layer:1", b)
                naive.alignment(frames, *aligned[name], taps.timing["layer:1"])
        sums, counts = naive.result()
        if "hard" in options:
            sums.pop("hard")
        return sums, counts

    soft = options.get("soft", 0.5)
    stats = check(
        model, batch, "phone", expected, soft=0.3 * soft, hard=0.3 * (1 - soft)
    )
    assert float(stats["lm.left_out_phone"]) == pytest.approx(1 / 3)
    assert 0 < float(stats["lm.coverage_phone"]) < 0.8


def levels_of(folder):
    quiet = {"predictor_conf": {"dropout_rate": 0.0}}
    return {
        "low": chars(folder, "layer:1", map="ctc"),
        "own": chars(folder, "layer:2", map="cif", **quiet),
        "top": {**chars(folder, map="cif", soft=0, **quiet), "lm_type": "none"},
    }


def with_every_map(folder):
    """A model with a level of each map, and recordings."""
    batch = audio()
    levels = {**levels_of(folder), "phone": phones(folder, batch)[1]}
    changes = {**ALONE, "encoder_conf": ENCODER}
    model = host_model("cif", criteria(levels)["criteria"], changes)
    assert {one.options.map for one in model.criteria["lm"].levels} == set(HARD)
    return model.double().train(), batch


def test_companions_and_padding_change_nothing(tmp_path):
    """Sums of a batch are those of its utterances; padding may be NaN."""
    model, batch = with_every_map(tmp_path)
    names = batch.pop("utt_id")
    taps, output, _, _ = stepped(model, {**batch, "utt_id": names})
    parts = [
        stepped(model, {**slice_batch(batch, [b]), "utt_id": names[b : b + 1]})[1]
        for b in range(len(names))
    ]
    for name, value in output.losses.items():
        alone = sum(part.losses[name] for part in parts)
        torch.testing.assert_close(value, alone)
        counts = sum(int(part.frames[name]) for part in parts)
        assert int(output.frames[name]) == counts
    criterion = model.criteria["lm"]

    def padded(taps):
        found = copy.copy(taps)
        more = torch.full((len(names), 7, 8), float("nan"), dtype=torch.float64)

        def longer(frames, lengths):
            frames = frames.detach().clone()
            for row, n in zip(frames, lengths, strict=True):
                row[n:] = float("nan")
            return torch.cat([frames, more], 1).requires_grad_()

        found.hs_pad = longer(taps.hs_pad, taps.hlens)
        found.layers = {
            n: longer(taps.layers[n], taps.layer_lens[n]) for n in taps.layers
        }
        return found

    more = padded(taps)
    again = criterion(more)
    for name, value in output.losses.items():
        torch.testing.assert_close(again.losses[name], value.detach())
    sum(again.losses.values()).backward()
    for frames in (more.hs_pad, *more.layers.values()):
        assert frames.grad.isfinite().all() and frames.grad.any()
    assert all(p.grad.isfinite().all() for p in criterion.parameters())


@pytest.mark.parametrize("texts", [["", ""], ["A", ""], ["A"]])
def test_empty_text_and_text_of_one_unit(tmp_path, texts):
    model = tiny_model(encoder_conf=ENCODER, model_conf=criteria(levels_of(tmp_path)))
    model, batch = model.double().train(), features(len(texts))
    batch["text_lengths"] = torch.tensor([len(text) for text in texts])
    batch["text"] = torch.full((len(texts), max(map(len, texts))), -1)
    for row, text in zip(batch["text"], texts, strict=True):
        row[: len(text)] = torch.tensor([TOKENS.index(c) for c in text])
    _, output, loss, _ = stepped(model, batch)
    assert loss.isfinite()
    loss.backward()
    heads = model.criteria["lm"].heads
    assert all(p.grad.isfinite().all() for p in heads.parameters())
    units = sum(map(len, texts))
    assert int(output.frames["loss_own_soft"]) == units
    assert int(output.frames["loss_low_hard"]) == units
    assert output.losses["loss_own_soft"].item() >= 0


def test_cif_heads_fire_exactly_the_units(tmp_path, monkeypatch):
    """Also more units than frames, and with any alpha."""
    from espnet_cif_hkd.distill import level_heads

    fired = []
    original = level_heads.integrate_and_fire

    def keep(*args, **kwargs):
        fired.append(original(*args, **kwargs))
        return fired[-1]

    monkeypatch.setattr(level_heads, "integrate_and_fire", keep)
    levels = {"own": levels_of(tmp_path)["own"]}
    model = tiny_model(encoder_conf=ENCODER, model_conf=criteria(levels)).train()
    batch = tiny_batch(4)
    lengths = torch.tensor([1, 0, 40, 7])
    assert lengths[2] > batch["speech_lengths"][2]
    batch["text_lengths"] = lengths
    batch["text"] = torch.full((4, 40), -1)
    for row, n in zip(batch["text"], lengths, strict=True):
        row[:n] = torch.randint(3, 11, (int(n),))
    batch["text"][2, :40] = torch.randint(3, 11, (40,))
    for scale in (1.0, 5.0):
        model.criteria["lm"].heads["own"].predictor.output.bias.data.fill_(-scale)
        taps = stepped(model, batch)[0]
        assert fired[-1].lengths.tolist() == taps.ys_pad_lens.tolist() == [1, 0, 40, 7]
        sums = fired[-1].alpha.sum(1)
        torch.testing.assert_close(sums, lengths.double())
        assert fired[-1].embeddings.size(1) == 40


def test_utterances_with_too_few_frames_are_left_out(tmp_path):
    levels = {"low": chars(tmp_path, "layer:1", map="ctc")}
    model = tiny_model(encoder_conf=ENCODER, model_conf=criteria(levels)).double()
    batch = features(3)
    frames = int(batch["speech_lengths"][1])
    batch["text_lengths"] = torch.tensor([3, frames, 4])
    batch["text"] = torch.full((3, frames), -1)
    for row, n in zip(batch["text"], batch["text_lengths"], strict=True):
        row[:n] = 3 + torch.arange(int(n)) % 8
    batch["text"][1, 1] = batch["text"][1, 0]  # one frame more
    _, output, _, stats = stepped(model.train(), batch)
    assert float(stats["lm.left_out_low"]) == pytest.approx(1 / 3)
    rest = {**slice_batch({k: v for k, v in batch.items() if k != "utt_id"}, [0, 2])}
    kept = stepped(model, rest)[1]
    for name in ("loss_low_soft", "loss_low_hard"):
        torch.testing.assert_close(output.losses[name], kept.losses[name])
        assert int(output.frames[name]) == int(kept.frames[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tmp_path, dtype):
    """Losses are float32 and near those of float32."""
    model, batch = with_every_map(tmp_path)
    model, batch["speech"] = model.float(), batch["speech"].float()
    taps, exact, _, _ = stepped(model, batch)
    criterion = model.criteria["lm"]
    with torch.autocast("cpu", dtype):
        found = criterion(taps)
    for name, value in found.losses.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, exact.losses[name], rtol=0.05, atol=0.5)
    sum(found.losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in criterion.parameters())


def test_all_labels_equal_the_full_distribution(tmp_path):
    """``top_k`` of the number of units, or more."""
    found = []
    for top_k in (9, 50):
        level = {**chars(tmp_path, map="cif", soft=1.0), "top_k": top_k}
        model = tiny_model(model_conf=criteria({"own": level})).double().eval()
        found.append(stepped(model, features())[1].losses["loss_own_soft"])
    assert torch.equal(*found)


def test_a_level_with_weight_0_costs_nothing(tmp_path):
    levels = levels_of(tmp_path)
    levels["off"] = chars(tmp_path, "layer:2", map="ctc", weight=0)
    levels["out"] = {"tap": "logits", "interpolation": 0, "lm_type": "table"}
    levels["own"]["weight"] = 0
    model = tiny_model(encoder_conf=ENCODER, model_conf=criteria(levels))
    assert model.wanted_taps() == {"layer:1", "hs_pad"}
    assert set(model.criteria["lm"].heads) == {"low", "top"}
    nothing = criteria({"off": levels["off"]})
    model = tiny_model(encoder_conf=ENCODER, model_conf=nothing).train()
    plain = tiny_model(encoder_conf=ENCODER).train()
    assert list(model.state_dict()) == list(plain.state_dict())
    losses = [one(**tiny_batch())[0] for one in (model, plain)]
    assert torch.equal(*losses)


def test_the_recognisers_own_tokens_as_unit():
    level = {"tap": "hs_pad", "unit": "token", "map": "cif", "lm_type": "table"}
    model = tiny_model(model_conf=criteria({"own": level}, token_type="char"))
    assert model.criteria["lm"].heads["own"].output.out_features == len(TOKENS)
    batch = tiny_batch()
    _, output, _, _ = stepped(model.train(), batch)
    assert int(output.frames["loss_own_hard"]) == int(batch["text_lengths"].sum())
