"""Bad input of the criterion ``frames``: one line each, before hours are spent."""

import pytest
import torch
from espnet_parts import SMALL
from tiny_speech import RATE
from tone_teacher import (
    ALONE,
    host_model,
    pretrain_model,
    recordings_of,
    speech_batch,
    stored,
    texts_of,
    tone,
)

from espnet_cif_hkd.distill import CheckContext, FramesCriterion
from espnet_cif_hkd.errors import UserError


def refused(message, teachers, changes=(), **options):
    with pytest.raises(UserError, match=message) as caught:
        pretrain_model(teachers, changes, **options)
    assert "\n" not in str(caught.value)


ONE = {"one": tone()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap": "fired"}, r"frames\.tap is 'fired'; use hs_pad or layer:N"),
        ({"tap": "layer:9"}, r"criterion frames needs the tap 'layer:9'"),
        ({"loss": "l3"}, r"frames\.loss is 'l3'; use one of l1, l2, cosine"),
        ({"combine": "sum"}, r"frames\.combine is 'sum'; use one of heads"),
        ({"match": "near"}, r"frames\.match is 'near'; use one of time"),
        ({"delay": -1}, r"frames\.delay is -1"),
        ({"weight": 0}, r"frames\.weight is 0; give a number above 0"),
        ({"speed": 1}, r"frames: .*'speed'; FramesCriterion has the options teachers"),
    ],
)
def test_wrong_options(options, message):
    refused(message, ONE, **options)


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ({}, r"frames\.teachers is \{\}; write one line for each teacher"),
        ([tone()], r"frames\.teachers is \[.*write one line"),
        ({"one": None}, r"frames\.teachers is \{'one': None\}; write one line"),
        ({"a b": tone()}, r"teachers\.a b: this cannot name a teacher"),
        ({"keys": tone()}, r"teachers\.keys: this cannot name a teacher"),
        ({"one": "whisper"}, r"teachers\.one is 'whisper'; it must hold"),
        ({"one": tone(wieght=1)}, r"teachers\.one: 'wieght' is unknown; the options"),
        ({"one": tone(weight="1")}, r"teachers\.one\.weight is '1'; give a number"),
        ({"one": tone(normalize=1)}, r"teachers\.one\.normalize is 1; use true"),
        ({"one": tone(normalize=True)}, r"one: normalize: true needs statistics of"),
        ({"a": tone(), "b": tone()}, r"b: has the same options as a; each teacher"),
        ({"one": tone(rate=16000)}, r"its rate is 16000, but .* 8000 Hz; set rate"),
        ({"one": tone(teacher_type="x")}, r"teachers\.one: teacher_type is 'x'"),
        (
            {"one": tone(teacher_conf={"slower": 3})},
            "40 ms, teacher one every 60 ms: a teacher must not have fewer frames",
        ),
    ],
)
def test_wrong_teachers(teachers, message):
    refused(message, teachers)


def test_two_teachers_with_one_store(tmp_path):
    one = stored(tmp_path / "s", recordings_of(speech_batch()))
    refused("b: has the same store as a", {"a": one, "b": {**one, "layer": 3}})


@pytest.mark.parametrize("combine", ["average", "random"])
def test_one_head_needs_equal_widths(combine):
    teachers = {"a": tone(), "b": tone(teacher_dim=4)}
    refused("of equal width, but a has 6, b has 4", teachers, combine=combine)


def test_concatenation_of_a_ratio_that_is_no_integer():
    frontend = {"fs": RATE, "n_fft": 256, "hop_length": 64, "n_mels": 8}
    message = r"frames\.match: concat needs an integer ratio.*1\.6; use match: time"
    refused(message, ONE, {"frontend_conf": frontend}, match="concat")


def test_time_warp():
    masks = {"apply_freq_mask": True, "apply_time_mask": False}
    warp = {"specaug": "specaug", "specaug_conf": {**masks, "apply_time_warp": True}}
    message = "time warp moves .*set specaug_conf.apply_time_warp: false"
    refused(message, ONE, warp)
    still = {"specaug": "specaug", "specaug_conf": {**masks, "apply_time_warp": False}}
    pretrain_model(ONE, still)


def test_unknown_times_of_frames():
    changes = {"encoder": "vgg_rnn", "encoder_conf": {"output_size": 8}}
    refused(r"frames\.tap hs_pad: the times of its frames are unknown", ONE, changes)


def test_features_instead_of_audio():
    changes = {"input_size": 8, "frontend": None, "encoder_conf": SMALL}
    refused("criterion frames needs the audio", ONE, changes)


AUGMENTED = {
    "rir_scp": {"rir_scp": "rirs"},
    "noise_scp": {"noise_scp": "noises"},
    "speech_volume_normalize": {"speech_volume_normalize": 0.9},
    "preprocessor_conf.data_aug_effects": {
        "preprocessor_conf": {
            "data_aug_effects": [[0.1, "pitch_shift", {}]],
            "data_aug_prob": 0.5,
        }
    },
    "preprocessor: silence": {"preprocessor": "silence"},
}


@pytest.mark.parametrize("option", AUGMENTED)
def test_audio_that_is_changed_on_the_fly(option, tmp_path):
    """Only against a store: another teacher hears the changed audio, too."""
    changed = CheckContext("pretrain", training=AUGMENTED[option])
    FramesCriterion.check({"teachers": ONE}, changed)
    kept = {"one": stored(tmp_path / "s", recordings_of(speech_batch()))}
    plain = {"preprocessor_conf": {"fs": 8000}, "rir_scp": None}
    FramesCriterion.check({"teachers": kept}, CheckContext("cif", training=plain))
    with pytest.raises(UserError, match=f"^{option} changes the audio on the fly"):
        FramesCriterion.check({"teachers": kept}, changed)


@pytest.mark.parametrize("conf", [{}, {"apply_time_warp": True}])
def test_time_warp_before_the_model_is_built(conf):
    """ESPnet's default is to warp."""
    training = {"specaug": "specaug", "specaug_conf": conf}
    with pytest.raises(UserError, match="time warp moves the student's frames"):
        FramesCriterion.check({"teachers": ONE}, CheckContext(training=training))


def test_other_checks_before_the_model_is_built():
    with pytest.raises(UserError, match="missing a required argument: 'teachers'"):
        FramesCriterion.check({}, CheckContext())
    with pytest.raises(UserError, match=r"conf\.loss is .l3."):
        FramesCriterion.check({"teachers": ONE, "loss": "l3"}, CheckContext())
    with pytest.raises(UserError, match="teacher_type is 'x'"):
        FramesCriterion.check(
            {"teachers": {"a": tone(teacher_type="x")}}, CheckContext()
        )


def test_an_utterance_that_is_not_stored(tmp_path):
    """An error, unless ignore_missing counts it."""
    batch = speech_batch(quiet=True)
    one = {"one": stored(tmp_path / "s", recordings_of(batch)[1:])}
    with pytest.raises(UserError, match=r"no vectors for utterance0 \(1\.00 s\)"):
        pretrain_model(one).train()(**batch)
    model = pretrain_model(one, ALONE, ignore_missing=True).train()
    loss, stats, _ = model(**batch)
    assert float(stats["frames.missing_one"]) == pytest.approx(1 / 3)
    lens = model.encode(batch["speech"], batch["speech_lengths"])[1]
    covered = float(stats["frames.coverage_one"] * lens.sum())
    assert covered <= float(lens[1:].sum()) < float(lens.sum())
    rest = {key: value[1:] for key, value in batch.items()}
    torch.testing.assert_close(model(**rest)[0], loss)


def test_a_batch_without_any_target(tmp_path):
    """No loss, a zero gradient for each parameter, and NaN for the statistics."""
    model = pretrain_model(
        {"one": stored(tmp_path / "s", recordings_of(speech_batch(seed=9)))},
        ignore_missing=True,
    ).train()
    loss, stats, _ = model(**speech_batch())
    loss.backward()
    assert float(loss.detach()) == 0 and float(stats["frames.missing_one"]) == 1
    assert stats["frames.explained_one"].isnan()
    assert all(not p.grad.any() for p in model.parameters())


def test_a_store_of_other_audio(tmp_path):
    """With ignore_missing a training without any target would seem to work."""
    model = pretrain_model(
        {"one": stored(tmp_path / "s", recordings_of(speech_batch(seed=9)))},
        ignore_missing=True,
    ).train()
    with pytest.raises(UserError, match="has none of the first 102 utterances, such"):
        for seed in range(20, 60):
            model(**speech_batch((0.3, 0.3, 0.3), seed=seed))


@pytest.mark.parametrize("change", [-3, 3])
def test_a_store_of_another_length(tmp_path, change, monkeypatch):
    """More than a frame of 20 ms too few or too many."""
    batch = speech_batch((1.0, 0.8))
    one = {"one": stored(tmp_path / "s", recordings_of(batch))}
    model = pretrain_model(one).train()
    teacher = model.criteria["frames"]._teachers["one"]
    features = teacher.features

    def changed(recordings, device):
        found = features(recordings, device)
        longer = torch.nn.functional.pad(found[1], (0, 0, 0, change))
        return [found[0], longer]

    model(**batch)
    monkeypatch.setattr(teacher, "features", changed)
    with pytest.raises(UserError, match=r"for utterance1, which lasts 0\.80 s; the"):
        model(**batch)


def test_an_empty_store(tmp_path):
    one = stored(tmp_path / "s", recordings_of(speech_batch()))
    for shard in (tmp_path / "s").glob("shard-*"):
        shard.unlink()
    model = pretrain_model({"one": one}, ignore_missing=True).train()
    with pytest.raises(UserError, match="teacher one: its store is empty"):
        model(**speech_batch())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda speech: speech[..., None].repeat(1, 1, 2), "speech teachers hear one"),
        (lambda speech: speech.bfloat16(), "set train_dtype: float32"),
    ],
)
def test_audio_that_cannot_be_looked_up(change, message):
    from espnet_cif_hkd.distill.heard import heard

    batch = speech_batch()
    with pytest.raises(UserError, match=message):
        heard(change(batch["speech"]), batch["speech_lengths"].tolist(), RATE)


def test_a_model_without_this_criterion_needs_no_audio():
    model = host_model("cif", {})
    assert "speech" not in model.wanted_taps()


@pytest.mark.parametrize("width", [{}, {"teacher_dim": 6}], ids=["", "width"])
@pytest.mark.parametrize(
    ("teacher", "revision", "message"),
    [
        ("/gone/whisper", None, "/gone/whisper: this folder does not exist"),
        ("./gone/whisper", None, "./gone/whisper: this folder does not exist"),
        ("pkg://gone-package/model", None, "'gone-package' is not installed"),
        ("models/gone", None, "config.json is not on this|there is no such folder"),
        ("gone", None, "config.json is not on this machine|there is no such folder"),
        ("models/gone", "main", "config.json is not on this|cannot open its config"),
    ],
)
def test_a_teacher_that_is_not_here(teacher, revision, message, width):
    """Decoding works without the teacher; a training is refused, at the latest then."""
    here = host_model("cif", {"speech": {"type": "frames", "teachers": ONE}})
    gone = {"one": {"teacher": teacher, "rate": RATE, "normalize": False, **width}}
    gone["one"] |= {"teacher_revision": revision} if revision else {}
    message = f"one: teacher .*({message})" if "pkg" not in teacher else message
    away = host_model("cif", {"speech": {"type": "frames", "teachers": gone}})
    away.load_state_dict(here.state_dict(), strict=False)
    batch = speech_batch()
    frames = [
        model.eval().encode(batch["speech"], batch["speech_lengths"])[0]
        for model in (here, away)
    ]
    torch.testing.assert_close(*frames, rtol=0, atol=0)
    with pytest.raises(UserError, match=message):
        FramesCriterion.check_training({"teachers": gone}, {})
    with pytest.raises(UserError, match=message):
        away.train()(**batch, **texts_of())
