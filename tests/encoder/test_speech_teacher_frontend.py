"""``frontend: speech_teacher``: features, store, times, checkpoints, models."""

import argparse
import copy
import shutil

import numpy as np
import pytest
import torch
from espnet2.tasks.asr import ASRTask
from tiny_model import CIF_CONFORMER, tiny_config
from tiny_whisper import FRAME, RATE, WIDTH, build_tiny_whisper, padded, speech

from espnet_cif_hkd.encoder.geometry import (
    feature_rate,
    feature_times,
    known_frame_times,
)
from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.compat import TooShortUttError
from espnet_cif_hkd.teachers.speech.base import Recording
from espnet_cif_hkd.teachers.speech.dump import Recordings, fill_speech_store
from espnet_cif_hkd.teachers.speech.registry import build_speech_teacher

CPU = torch.device("cpu")
WAVES = [speech(1.0, 1), speech(0.53, 2), speech(0.7, 3)]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return build_tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def store(whisper, tmp_path_factory):
    """A store with the first two recordings."""
    folder = tmp_path_factory.mktemp("store")
    recordings = [Recording(wave, RATE) for wave in WAVES[:2]]
    conf = {"teacher": whisper, "teacher_dim": WIDTH}
    fill_speech_store(conf, str(folder), Recordings(lambda rate: recordings, CPU))
    return str(folder)


def build(whisper, **changes):
    return SpeechTeacherFrontend(teacher=whisper, teacher_dim=WIDTH, **changes)


def frames_of(whisper, wave):
    """All frames of the last layer, (T, C)."""
    teacher = build_speech_teacher({"teacher": whisper, "teacher_dim": WIDTH})
    return teacher.features([Recording(wave, RATE)], CPU)[0]


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_features_are_means_of_neighbouring_frames(whisper, pool):
    frontend = build(whisper, pool=pool)
    feats, lengths = frontend(*padded(WAVES))
    assert frontend.output_size() == feats.size(2) == WIDTH
    for wave, own, length in zip(WAVES, feats, lengths.tolist(), strict=True):
        frames = frames_of(whisper, wave)
        assert length == len(frames) // pool
        for k in range(length):
            mean = frames[k * pool : (k + 1) * pool].mean(0)
            torch.testing.assert_close(own[k], mean)
        assert not own[length:].any()


def test_features_do_not_depend_on_companions_or_padding(whisper):
    frontend = build(whisper)
    together, lengths = frontend(*padded(WAVES))
    speech_pad, speech_lengths = padded(WAVES)
    for n, length in enumerate(speech_lengths.tolist()):
        speech_pad[n, length:] = torch.nan
    other, _ = frontend(speech_pad, speech_lengths)
    torch.testing.assert_close(other, together, rtol=0, atol=0)
    for n, wave in enumerate(WAVES):
        alone, _ = frontend(*padded([wave]))
        torch.testing.assert_close(alone[0], together[n, : lengths[n]])


@pytest.mark.parametrize("how", [{}, {"train": True}])
def test_features_do_not_depend_on_full_scale(whisper, how):
    """ESPnet reads Kaldi's archives of wav files with full scale 32768."""
    frontend = build(whisper, **how)
    speech_pad, lengths = padded(WAVES)
    expected, _ = frontend(speech_pad, lengths)
    speech_pad[1] *= 32768
    found, _ = frontend(speech_pad, lengths)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pool", [1, 2, 5])
def test_times_of_pooled_frames(whisper, pool):
    """A feature frame is centred between the centres of its frames of the model."""
    frontend = build(whisper, pool=pool)
    one = build(whisper, pool=1).times
    for k in (0, 3):
        centres = one.centres(torch.arange(k * pool, (k + 1) * pool))
        found = feature_times(frontend, RATE).centres(torch.tensor(k))
        torch.testing.assert_close(found, centres.mean())
    assert one.stride == FRAME / RATE
    assert feature_rate(frontend) == RATE


@pytest.mark.parametrize("training", [True, False])
def test_stored_features_equal_computed_ones(whisper, store, training, monkeypatch):
    computed, lengths = build(whisper)(*padded(WAVES[:2]))
    frontend = build(whisper, teacher_store=store).train(training)
    monkeypatch.setattr(frontend.teacher, "open", None)  # never opened
    stored, n_stored = frontend(*padded(WAVES[:2]))
    assert torch.equal(lengths, n_stored)
    torch.testing.assert_close(stored, computed, rtol=2**-9, atol=2e-3)


def test_training_needs_every_recording_in_the_store(whisper, store):
    frontend = build(whisper, teacher_store=store).train()
    with pytest.raises(UserError, match=r"0\.70 s.*cli\.dump_speech_teacher") as caught:
        frontend(*padded(WAVES))
    assert "\n" not in str(caught.value)


def test_validation_computes_what_is_not_stored(whisper, store):
    frontend = build(whisper, teacher_store=store).eval()
    expected, _ = build(whisper)(*padded(WAVES))
    found, _ = frontend(*padded(WAVES))
    torch.testing.assert_close(found, expected, rtol=2**-9, atol=2e-3)


def test_decoding_without_the_store(whisper, tmp_path):
    """A shared model names a store that is not on the other machine."""
    frontend = build(whisper, teacher_store=str(tmp_path / "gone"))
    expected, _ = build(whisper)(*padded(WAVES))
    torch.testing.assert_close(frontend.eval()(*padded(WAVES))[0], expected)
    with pytest.raises(UserError, match=r"gone.*cli\.dump_speech_teacher"):
        frontend.train()(*padded(WAVES))


def test_faster_copies_have_entries_of_their_own(whisper, store):
    fast = WAVES[0][::2].copy()
    frontend = build(whisper, teacher_store=store).train()
    with pytest.raises(UserError, match="has no vectors"):
        frontend(*padded([fast]))


@pytest.mark.parametrize("changes", [{"fs": "8k"}, {"layer": 1}, {"pad": "full"}])
def test_a_store_for_other_options_is_refused(whisper, store, changes):
    frontend = build(whisper, teacher_store=store, **changes)
    name = {"fs": "rate"}.get(*changes, *changes)
    with pytest.raises(UserError, match=f"made for {name} .*but the configuration"):
        frontend.check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": 0}, "pool 0 must be an integer"),
        ({"pool": 1.5}, "pool 1.5 must be an integer"),
        ({"fs": "fast"}, "fs 'fast' is no sampling rate"),
        ({"layer": 9}, "there is no layer 9"),
        ({"train": "yes"}, "train 'yes' must be true or false"),
        ({"weights": "copy"}, "weights 'copy' must be reference or value"),
        ({"train": True, "weights": "reference"}, "set weights: value"),
        ({"train": True, "teacher_store": "x"}, "remove teacher_store"),
        ({"teacher": "pkg://no-such-package/x"}, "'no-such-package' is not installed"),
        ({"weights": "value", "teacher_dim": None}, "set teacher_dim"),
        ({"teacher_dim": 5}, "12 dimensions, but teacher_dim is 5"),
    ],
)
def test_wrong_options(whisper, changes, message):
    conf = {"teacher": whisper, "teacher_dim": WIDTH, **changes}
    with pytest.raises(UserError, match=message) as caught:
        SpeechTeacherFrontend(**conf)
    assert "\n" not in str(caught.value)


def test_several_channels(whisper):
    with pytest.raises(UserError, match="needs one channel"):
        build(whisper)(torch.zeros(1, 1000, 2), torch.tensor([1000]))


@pytest.mark.parametrize("pool", [1, 2, 5])
def test_too_short_utterances(whisper, pool):
    """Every length has features, or raises what ``asr_inference`` handles."""
    frontend = build(whisper, pool=pool).eval()
    had_features = False
    for samples in (0, 1, 10, 150, 201, 319, 321, 500, 640, 960, 1280, 1700):
        try:
            _, lengths = frontend(*padded([speech(1.0)[:samples]]))
        except TooShortUttError:
            assert not had_features
            continue
        had_features = True
        assert lengths.tolist() == [
            len(frames_of(whisper, speech(1.0)[:samples])) // pool
        ]
    assert had_features


@pytest.mark.parametrize("pool", [1, 2, 5])
def test_frames_are_counted_without_the_audio(whisper, pool):
    """As the recipe's check of CTC needs it: within one frame."""
    frontend = build(whisper, pool=pool)
    for samples in (1600, 1759, 4000, 16000, 48001, 70000):
        _, lengths = frontend(*padded([speech(5.0)[:samples]]))
        assert abs(frontend.count(samples) - int(lengths)) <= 1
    fewest = frontend.fewest_samples
    with pytest.raises(TooShortUttError):
        frontend(*padded([speech(1.0)[: fewest - FRAME]]))
    assert frontend(*padded([speech(1.0)[: fewest + FRAME]]))[1] >= 1


def test_other_sampling_rates_are_converted(whisper):
    """Half the rate: nearly the features of the same sound."""
    time = np.arange(RATE) / RATE
    wave = (0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    full, n_full = build(whisper)(*padded([wave]))
    half, n_half = build(whisper, fs="8k")(*padded([wave[::2].copy()]))
    assert torch.equal(n_full, n_half)
    error = (half - full)[:, 2:-2].abs().mean() / full.abs().mean()
    assert error < 0.05


def test_mixed_precision_does_not_reach_the_model(whisper):
    frontend = build(whisper)
    expected, _ = frontend(*padded(WAVES))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = frontend(*padded(WAVES))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_by_reference_nothing_is_in_the_checkpoint(whisper):
    frontend = build(whisper)
    frontend(*padded(WAVES))
    assert not frontend.state_dict() and not list(frontend.parameters())


@pytest.mark.parametrize("train", [False, True])
def test_by_value_the_checkpoint_is_enough(whisper, tmp_path, train):
    gone = shutil.copytree(whisper, tmp_path / "whisper")
    options = {"teacher": str(gone), "teacher_dim": WIDTH, "layer": [0, -1]}
    options |= {"train": train, "weights": "value"}
    first = SpeechTeacherFrontend(**options)
    parameters = list(first.parameters())
    assert parameters and all(one.requires_grad == train for one in parameters)
    if train:
        for one in parameters:
            one.data += 0.01
    expected, _ = first.eval()(*padded(WAVES))
    state = first.state_dict()
    # ESPnet averages checkpoints entry by entry.
    state = {key: (value + value + value) / 3 for key, value in state.items()}
    shutil.rmtree(gone)
    second = SpeechTeacherFrontend(**options).eval()
    assert second.output_size() == 2 * WIDTH
    with pytest.raises(UserError, match="whisper"):
        second(*padded(WAVES))
    second.load_state_dict(state)
    found, _ = second(*padded(WAVES))
    torch.testing.assert_close(found, expected)
    assert second.times == first.times
    torch.testing.assert_close(copy.deepcopy(second)(*padded(WAVES))[0], expected)


def test_a_checkpoint_of_another_model_replaces_the_files(whisper, tmp_path):
    """The folder may have changed since: the checkpoint decides."""
    other = build_tiny_whisper(tmp_path / "other", seed=1)
    first = build(whisper, weights="value")
    second = build(other, weights="value")
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(
        second.eval()(*padded(WAVES))[0], first.eval()(*padded(WAVES))[0]
    )


def test_a_frozen_model_has_no_gradients_and_no_dropout(whisper):
    frontend = build(whisper, weights="value").train()
    assert not frontend.speech_model.training
    feats, _ = frontend(*padded(WAVES))
    assert not feats.requires_grad


def test_trained_weights_get_gradients(whisper):
    frontend = build(whisper, train=True).train()
    feats, _ = frontend(*padded(WAVES))
    feats.square().mean().backward()
    gradients = [one.grad for one in frontend.speech_model.model.layers.parameters()]
    assert all(one is not None for one in gradients)
    assert sum(float(one.abs().sum()) for one in gradients) > 0


ENCODERS = ["conformer", "transformer", "e_branchformer", "cif_conformer"]


def model_config(whisper, encoder="cif_conformer", model="cif", **conf):
    conf = {"teacher": whisper, "teacher_dim": WIDTH, **conf}
    changes = {"input_size": None, "frontend": "speech_teacher", "frontend_conf": conf}
    if encoder == "cif_conformer":
        changes |= CIF_CONFORMER
    else:
        sizes = {"output_size": 8, "attention_heads": 2, "num_blocks": 1}
        changes |= {"encoder": encoder}
        changes["encoder_conf"] = {"input_layer": "linear", **sizes}
    if model == "hybrid":
        changes |= {"model": "hybrid", "decoder": "transformer"}
        changes["decoder_conf"] = {"num_blocks": 1, "linear_units": 8}
        changes["decoder_conf"]["attention_heads"] = 2
    config = tiny_config(**changes)
    config["specaug"] = "specaug"
    config["specaug_conf"] = {"apply_time_warp": False, "freq_mask_width_range": [0, 3]}
    config["specaug_conf"]["time_mask_width_range"] = [0, 5]
    config["normalize"] = "utterance_mvn"
    return config


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model", ["cif", "hybrid"])
def test_a_step_with_each_encoder_and_model(whisper, store, encoder, model):
    """Loss and gradients, with SpecAugment, normalisation and mixed precision."""
    config = model_config(whisper, encoder, model, teacher_store=store)
    asr = ASRTask.build_model(argparse.Namespace(**config)).train()
    samples, lengths = padded(WAVES[:2])
    text, text_lengths = torch.tensor([[3, 4, 5], [6, 7, -1]]), torch.tensor([3, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = asr(samples, lengths, text, text_lengths)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in asr.parameters())
    feats = asr.collect_feats(samples, lengths, text, text_lengths)
    assert feats["feats"].shape[2] == WIDTH
    times = known_frame_times(asr, RATE)
    stride = 2 * FRAME / RATE * (2 if encoder == "cif_conformer" else 1)
    assert times.stride == pytest.approx(stride)


@pytest.mark.parametrize("weights", ["reference", "value"])
def test_a_checkpoint_of_the_model_loads(whisper, weights):
    config = model_config(whisper, weights=weights)
    first = ASRTask.build_model(argparse.Namespace(**copy.deepcopy(config)))
    second = ASRTask.build_model(argparse.Namespace(**config))
    second.load_state_dict(first.state_dict())
    waves = padded(WAVES)
    assert torch.equal(first.eval().encode(*waves)[0], second.eval().encode(*waves)[0])
