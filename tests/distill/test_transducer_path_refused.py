"""Wrong options, teachers and students of ``transducer_path``: one line each."""

from pathlib import Path

import pytest
import torch
import yaml
from espnet_parts import HYBRID
from tiny_model import FEATURES, TOKENS
from tiny_speech import CHANGES
from tone_teacher import host_model, speech_batch, texts_of
from transducer_parts import tiny_transducer
from transducer_teacher import HOP, save_teacher, student_of

from espnet_cif_hkd.distill.criterion import CheckContext
from espnet_cif_hkd.distill.transducer_path import TransducerPathCriterion
from espnet_cif_hkd.errors import UserError


def train(student):
    student.train()(**speech_batch(quiet=True), **texts_of())


def check(folder, training=None, **options):
    conf = {"teacher": folder, **options}
    TransducerPathCriterion.check_training(conf, training or {})


@pytest.fixture
def refused():
    def refuse(message, call, *args, **kwargs):
        with pytest.raises(UserError, match=message) as caught:
            call(*args, **kwargs)
        assert "\n" not in str(caught.value)

    return refuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0}, "criteria.path.weight is 0; give a number above 0"),
        ({"temperature": -1.0}, "criteria.path.temperature is -1.0; give a number"),
        ({"top_k": 0}, "criteria.path.top_k is 0; give a number of tokens"),
        ({"top_k": 1.5}, "criteria.path.top_k is 1.5"),
        ({"delay": -1}, "criteria.path.delay is -1; give a number of frames"),
        ({"temperatur": 1.0}, "criteria.path: .*unexpected keyword .*temperatur"),
        ({"teacher": None}, "criteria.path.teacher is None; name the folder"),
    ],
)
def test_options(refused, options, message):
    if options == {"teacher": None}:
        with pytest.raises(UserError, match=message.replace("criteria.path", ".*")):
            check(None)
        return
    refused(message, student_of, "/gone", **options)


def test_students(refused):
    """Another model, features instead of audio, a time warp, unknown times."""
    criteria = {"path": {"type": "transducer_path", "teacher": "/gone"}}
    for host, changes in (("cif", ()), ("hybrid", HYBRID)):
        refused(
            f"joint network; model: {host} has none",
            host_model,
            host,
            criteria,
            changes,
        )
    refused(
        "criterion path needs the audio",
        tiny_transducer,
        input_size=FEATURES,
        model_conf={"criteria": criteria},
    )
    warped = {"specaug": "specaug", "specaug_conf": {"apply_time_mask": False}}
    refused("time warp moves the student", student_of, "/gone", changes=warped)
    conf = {"num_layers": 1, "hidden_size": 8, "output_size": 8}
    unknown = {"encoder": "rnn", "encoder_conf": conf}
    refused(
        "criterion path: the times of the student's encoder frames are unknown",
        student_of,
        "/gone",
        changes=unknown,
    )


def test_a_teacher_that_is_not_there(refused):
    """Before the training, and at its first batch; not when the model is built."""
    message = "teacher /gone: there is no such folder or file; train the teacher first"
    refused(message, check, "/gone")
    refused(message, train, student_of("/gone"))


def test_a_folder_without_one_checkpoint(tmp_path, refused):
    folder, model = save_teacher(tmp_path)
    (tmp_path / "valid.acc.ave.pth").rename(tmp_path / "3epoch.pth")
    check(folder)  # the only one
    torch.save(model.state_dict(), tmp_path / "4epoch.pth")
    refused("has 2 checkpoints .*name one file, such as .*3epoch.pth", check, folder)
    check(str(tmp_path / "4epoch.pth"))
    for path in tmp_path.glob("*.pth"):
        path.unlink()
    (tmp_path / "checkpoint.pth").touch()
    refused("the folder has no checkpoint", check, folder)


def test_a_broken_teacher(tmp_path, refused):
    folder, model = save_teacher(tmp_path)
    place = tmp_path / "valid.acc.ave.pth"
    state = model.state_dict()
    torch.save({k: v for k, v in state.items() if "lin_out" not in k}, place)
    refused(
        "cannot be opened from .*: the checkpoint lacks 2 of the keys", check, folder
    )
    state["joint_network.lin_out.bias"] = torch.zeros(3)
    torch.save(state, place)
    refused("cannot be opened from .*size mismatch for joint_network", check, folder)
    place.write_bytes(place.read_bytes()[:1000])
    refused("cannot be opened from .*acc.ave.pth", check, folder)
    (tmp_path / "config.yaml").write_text("a: [")
    refused("config.yaml cannot be read", check, folder)
    (tmp_path / "config.yaml").unlink()
    refused("config.yaml cannot be read .*No such file", check, folder)


def test_another_kind_of_model(tmp_path, refused):
    folder, _ = save_teacher(tmp_path)
    path = tmp_path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "decoder": "transformer"}))
    refused("its decoder is 'transformer'; .*'decoder: transducer'", check, folder)
    path.write_text(yaml.safe_dump({**config, "normalize": "global_mvn"}))
    refused("cannot be opened from", check, folder)


def test_other_tokens(tmp_path, refused, monkeypatch):
    tokens = [*TOKENS[:-2], "Z", TOKENS[-1]]
    folder, _ = save_teacher(tmp_path / "teacher", token_list=tokens)
    message = f"another token list: token {len(TOKENS) - 2} is 'Z', the student's 'H'"
    refused(message, train, student_of(folder))
    refused(message, check, folder, {"token_list": TOKENS})
    listed = tmp_path / "tokens.txt"
    listed.write_text("".join(f"{token}\n" for token in TOKENS))
    refused(message, check, folder, {"token_list": str(listed)})
    context = CheckContext("transducer", TOKENS, "char", "train.yaml", {})
    conf = {"teacher": folder}
    refused(message, TransducerPathCriterion.check, conf, context)
    more = [*tokens, "Y"]
    refused("it has 12 tokens, the student 13", check, folder, {"token_list": more})


def test_another_rate_or_fewer_frames(tmp_path, refused):
    frontend = {**CHANGES["frontend_conf"], "fs": 16000, "hop_length": HOP}
    folder, _ = save_teacher(tmp_path / "fast", frontend_conf=frontend)
    refused("audio of 16000 Hz, but the student's is 8000", train, student_of(folder))
    folder, _ = save_teacher(tmp_path / "slow", hop=2 * HOP)
    refused(
        "the student has a frame every 20 ms, teacher .* every 40 ms: a teacher must "
        "not have fewer frames",
        train,
        student_of(folder),
    )


def test_a_teacher_with_unknown_times(tmp_path, refused):
    conf = {"num_layers": 1, "hidden_size": 8, "output_size": 8}
    folder, _ = save_teacher(tmp_path, encoder="rnn", encoder_conf=conf)
    refused("times of its encoder frames are unknown", check, folder)


def test_a_time_warp_before_the_model_is_built(tmp_path, refused):
    folder, _ = save_teacher(tmp_path)
    refused("time warp moves", check, folder, {"specaug": "specaug"})
    check(folder, {"specaug": "specaug", "specaug_conf": {"apply_time_warp": False}})


def test_a_recording_too_short_for_the_teacher(tmp_path, refused):
    conf = {"input_layer": "conv2d8", "output_size": 8, "attention_heads": 2}
    folder, _ = save_teacher(
        tmp_path, 20, encoder_conf={**conf, "linear_units": 8, "num_blocks": 1}
    )
    student, texts = student_of(folder), texts_of()
    batch = speech_batch((0.03, 0.03, 0.03))
    refused(
        "an utterance is too short for its encoder", student.train(), **batch, **texts
    )


def test_a_checkpoint_of_espnets_own_transducer(tmp_path):
    """It has neither our version nor the digest of the tokens."""
    folder, model = save_teacher(tmp_path)
    path = Path(folder) / "valid.acc.ave.pth"
    state = model.state_dict()
    ours = {"token_list_digest", "package_version"}
    torch.save({k: v for k, v in state.items() if k not in ours}, path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config |= {"model": "espnet", "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    check(folder)
    student = student_of(folder)
    student.load_state_dict(state, strict=False)
    _, stats, _ = student.train()(**speech_batch(quiet=True), **texts_of())
    assert float(stats["path.kl_path"]) == pytest.approx(0, abs=1e-6)
