"""``soft_labels`` in every model and encoder, beside other criteria, and its stores."""

import copy

import numpy as np
import pytest
import torch
from espnet_parts import ENCODERS, HYBRID
from level_loops import audio, features, stepped
from soft_levels import chars, criteria, spans_of, texts_of, to_unit, write_ctm
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import CIF_CONFORMER, TOKENS, tiny_batch, tiny_model
from tone_teacher import ALONE, host_model, recordings_of, stored
from transducer_parts import tiny_transducer

from espnet_cif_hkd.distill import Sentences, SoftLabelsCriterion
from espnet_cif_hkd.distill.filling import stores
from espnet_cif_hkd.teachers.store.reader import StoreReader

OURS = {**CIF_CONFORMER["encoder_conf"], "num_blocks": 3, "dropout_rate": 0.0}
STUDENTS = {name: (name, conf) for name, conf in ENCODERS.items()}
STUDENTS["cif_conformer"] = ("cif_conformer", OURS)


def levels_of(folder, **store):
    return {
        "low": chars(folder, "layer:1", map="ctc", **store),
        "own": chars(folder, "layer:2", map="cif"),
        "top": {**chars(folder, "hs_pad", map="cif"), "soft": 0},
    }


def trained(model, batch):
    """All parameters get finite gradients, and updates lower the losses of levels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    history = []
    for _ in range(5):
        torch.manual_seed(1)
        loss, stats, _ = model(**copy.deepcopy(batch))
        optimizer.zero_grad()
        loss.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert all(p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        history.append(sum(float(v) for k, v in stats.items() if k.startswith("lm.lo")))
    assert history[-1] < 0.9 * history[0]
    return stats


@pytest.mark.slow
@pytest.mark.parametrize("encoder", STUDENTS)
def test_every_encoder_trains_its_levels(tmp_path, encoder):
    name, conf = STUDENTS[encoder]
    levels = {"model_conf": criteria(levels_of(tmp_path))}
    model = tiny_model(encoder=name, encoder_conf=conf, **levels).train()
    stats = trained(model, tiny_batch(4))
    assert {"lm.loss_low_soft", "lm.loss_own_quantity", "lm.loss_top_hard"} <= set(
        stats
    )
    assert "lm.loss_top_soft" not in stats


@pytest.mark.parametrize("host", ["hybrid", "transducer"])
def test_every_model_trains_its_levels(tmp_path, host):
    conf = criteria(levels_of(tmp_path))
    encoder = {"encoder": "e_branchformer", "encoder_conf": ENCODERS["e_branchformer"]}
    if host == "hybrid":
        model = tiny_model(**HYBRID, **encoder, model_conf=conf)
    else:
        model = tiny_transducer(**encoder, model_conf=conf)
    trained(model.train(), tiny_batch(4))


def test_beside_hkd_and_frames(tmp_path):
    """Three criteria in one YAML: the losses are those of each alone."""
    batch = audio()
    batch["speech"] = batch["speech"].float()
    aligned = {
        name: (to_unit(text), spans_of(text, 0.7))
        for name, text in zip(batch["utt_id"], texts_of(batch), strict=True)
    }
    ctm = write_ctm(tmp_path / "units.ctm", aligned)
    phone = chars(tmp_path, "layer:1", map="alignment", alignment=ctm)
    parts = {
        "lm": {"type": "soft_labels", "levels": {"phone": phone}},
        "bert": {
            "type": "hkd",
            "teacher": build_tiny_bert(tmp_path),
            "teacher_dim": HIDDEN,
            "acoustic": {"num_negatives": "all"},
        },
        "whisper": {
            "type": "frames",
            "teachers": {"one": stored(tmp_path / "one", recordings_of(batch))},
        },
    }
    model = host_model("cif", parts, ALONE).train()
    loss, stats, _ = model(**copy.deepcopy(batch))
    loss.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    weights = {
        "lm.loss_phone_soft": 0.15,
        "lm.loss_phone_hard": 0.15,
        "bert.loss_acd": 1.0,
        "bert.loss_lrd": 0.01,
        "whisper.loss_one": 1.0,
    }
    plain = host_model("cif", {}, ALONE)
    plain.load_state_dict(model.state_dict(), strict=False)
    alone = plain.train()(**copy.deepcopy(batch))[0]
    extra = sum(weight * stats[name] for name, weight in weights.items())
    torch.testing.assert_close(loss.squeeze(), (alone + extra).squeeze())


HOPS = {10: 80, 20: 160, 40: 320, 80: 640}


@pytest.mark.parametrize("milliseconds", HOPS)
def test_frames_of_any_rate_learn_the_unit_at_their_centre(tmp_path, milliseconds):
    """One CTM file in seconds for all rates."""
    batch = audio()
    aligned = {
        name: (to_unit(text), spans_of(text, 0.9, seed=n))
        for n, (name, text) in enumerate(zip(batch["utt_id"], texts_of(batch)))
    }
    ctm = write_ctm(tmp_path / "units.ctm", aligned)
    level = chars(tmp_path, map="alignment", alignment=ctm, soft=0)
    frontend = {**ALONE["frontend_conf"], "hop_length": HOPS[milliseconds]}
    changes = {**ALONE, "frontend_conf": {**frontend, "n_fft": 1024}}
    model = host_model("cif", criteria({"one": level})["criteria"], changes).double()
    head = model.criteria["lm"].heads["one"]
    taught = []
    head._rows = lambda vectors, targets, *rest: taught.append((vectors, targets))
    taps, _, _, _ = stepped(model, batch)
    expected = []
    for b, (units, spans) in enumerate(aligned.values()):
        for k in range(int(taps.hlens[b])):
            at = k * milliseconds / 1000
            inside = [u for u, (a, z) in zip(units, spans, strict=True) if a <= at < z]
            if inside:
                expected.append((taps.hs_pad[b, k], inside[0]))
    vectors, targets = taught[0]
    assert len(targets) == len(expected) > 5
    assert targets.tolist() == [unit for _, unit in expected]
    assert torch.equal(vectors, torch.stack([frame for frame, _ in expected]))


def test_labels_from_stores_are_those_of_the_language_model(tmp_path):
    """The store is filled as a recipe does it; its labels are float16."""
    folder = str(tmp_path / "labels")
    online = levels_of(tmp_path)
    kept = levels_of(tmp_path, label_store=folder)
    kept["again"] = {**kept["low"], "tap": "layer:2"}
    batch = features(4)
    conf = criteria(kept)["criteria"]["lm"]
    assert [place for _, place in stores(criteria(kept))] == [folder]
    sentences = Sentences(
        lambda: [*texts_of(batch), [], [4, 4]], TOKENS, "char", torch.device("cpu")
    )
    options = {name: value for name, value in conf.items() if name != "type"}
    SoftLabelsCriterion.fill(options, folder, sentences)
    SoftLabelsCriterion.check_training(options, {})
    found = []
    for levels in (online, {name: kept[name] for name in online}):
        model = tiny_model(
            encoder="transformer",
            encoder_conf=ENCODERS["transformer"],
            model_conf=criteria(levels),
        )
        found.append(stepped(model.double().eval(), batch)[1].losses)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-3)
    assert not torch.equal(found[0]["loss_low_soft"], found[1]["loss_low_soft"])


def test_an_alignment_fills_the_store_with_its_own_units(tmp_path):
    """Units such as states are in no transcript."""
    folder = tmp_path / "labels"
    states = ["<blank>", "<unk>", "s1", "s2", "s3", "<sos/eos>"]
    (tmp_path / "states.txt").write_text("\n".join(states) + "\n")
    aligned = {"a": ([2, 3, 4], spans_of([0] * 3, 1.0)), "b": ([4], spans_of([0], 1.0))}
    level = {
        "tap": "hs_pad",
        "unit": "aligned",
        "unit_token_list": str(tmp_path / "states.txt"),
        "map": "alignment",
        "alignment": write_ctm(tmp_path / "states.ctm", aligned, states),
        "lm_type": "uniform",
        "top_k": 3,
        "label_store": str(folder),
    }
    sentences = Sentences(lambda: [[5, 6]], TOKENS, "char", torch.device("cpu"))
    SoftLabelsCriterion.fill({"levels": {"s": level}}, str(folder), sentences)
    from espnet_cif_hkd.distill.level_options import level_options
    from espnet_cif_hkd.distill.level_sources import LevelSource

    source = LevelSource(level_options({"s": level})[0], TOKENS)
    units = source.units([[5, 6]] * 3, ["a", "missing", "b"])
    assert units.sequences == [[2, 3, 4], [], [4]]
    assert units.left_out == [False, True, False]
    labels = source.labels(units, torch.device("cpu"))
    assert labels.ids.shape == (4, 3) and sorted(labels.ids[0].tolist()) == [2, 3, 4]
    np.testing.assert_allclose(labels.probabilities, 1 / 3, rtol=1e-3)
    teacher = source.teacher()
    assert len(StoreReader(folder, teacher.payload)) == 2
