"""Checks of a training's arguments before it begins."""

import re

import pytest
import yaml
from espnet2.tasks.asr import ASRTask
from tone_teacher import tone

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import check_arguments, check_command

BASE = {
    "frontend": "default",
    "frontend_conf": {"fs": "8k", "hop_length": 80},
    "encoder": "conformer",
    "encoder_conf": {"output_size": 8, "num_blocks": 2},
}


def checked(tmp_path, made=(), here=(), keys=":encoder:encoder", *words):
    """Check a training that starts from one with other options."""
    folder = tmp_path / "exp"
    folder.mkdir(exist_ok=True)
    made = {**BASE, "model": "pretrain", **dict(made)}
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    config = tmp_path / "here.yaml"
    config.write_text(yaml.safe_dump({**BASE, **dict(here)}))
    start = f"{folder}/valid.loss.ave.pth{keys}"
    check_command(["--config", str(config), "--init_param", start, *words])


def encoder(**changes):
    return {"encoder_conf": {**BASE["encoder_conf"], **changes}}


def test_the_same_encoder(tmp_path):
    """Also with defaults written out, another dropout, and 8000 for 8k."""
    checked(tmp_path)
    checked(tmp_path, encoder(macaron_style=False), encoder(dropout_rate=0.3))
    checked(tmp_path, here={"frontend_conf": {"fs": 8000, "hop_length": 80}})
    checked(tmp_path, here=encoder(stochastic_depth_rate=0.1))


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (encoder(num_blocks=3), r"encoder_conf\.num_blocks is 2 in .* and 3 here"),
        # The parameters have the same shapes.
        (encoder(attention_heads=2), r"encoder_conf\.attention_heads is 4 in .* and 2"),
        (
            encoder(macaron_style=True),
            r"encoder_conf\.macaron_style is False in .* Tru",
        ),
        (
            encoder(input_layer="conv2d6"),
            r"input_layer is 'conv2d' in .*'conv2d6' here",
        ),
        (
            {"encoder": "transformer"},
            r"encoder is 'conformer' in .* 'transformer' here",
        ),
        ({"frontend_conf": {"fs": "8k"}}, r"frontend_conf\.hop_length is 80 in .* 128"),
        ({"frontend_conf": {"fs": "16k", "hop_length": 80}}, "fs is 8000 in .* 16000"),
    ],
)
@pytest.mark.parametrize("keys", [":encoder:encoder", ""])
def test_the_option_that_differs_is_named(tmp_path, here, message, keys):
    with pytest.raises(UserError, match=message) as caught:
        checked(tmp_path, (), here, keys)
    text = str(caught.value)
    assert "exp/config.yaml" in text and "\n" not in text
    assert "give both models the same option" in text


def test_a_difference_that_the_user_allows(tmp_path, caplog):
    words = ("--ignore_init_mismatch", "true")
    checked(tmp_path, (), encoder(num_blocks=3), ":encoder:encoder", *words)
    assert "encoder_conf.num_blocks is 2" in caplog.text


DECODER = {"decoder": "cif_whisper", "decoder_conf": {"size": 8, "num_blocks": 2}}


def prepared(tmp_path, **here):
    """Check a training whose decoder starts from a prepared one."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(DECODER))
    yaml_file = tmp_path / "here.yaml"
    yaml_file.write_text(yaml.safe_dump({**BASE, **here}))
    start = f"{tmp_path}/decoder.pth:decoder:decoder"
    check_command(["--config", str(yaml_file), "--init_param", start])


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (
            {"decoder_conf": {"size": 8}},
            r"decoder_conf\.num_blocks is 2 in .* and 6 here",
        ),
        ({"decoder": "cif"}, r"decoder is 'cif_whisper' in .* and 'cif' here"),
    ],
)
def test_a_decoder_of_another_size_is_named(tmp_path, here, message):
    with pytest.raises(UserError, match=message) as caught:
        prepared(tmp_path, **{**DECODER, **here})
    assert "\n" not in str(caught.value)
    prepared(tmp_path, **DECODER)
    changed = {**DECODER["decoder_conf"], "frame_window": 3, "dropout_rate": 0.3}
    prepared(tmp_path, **{**DECODER, "decoder_conf": changed})


def test_a_recogniser_may_start_from_another_encoder(tmp_path, caplog):
    """``cif_conformer`` loads ESPnet's ``conformer`` by the names of parameters."""
    other = {"model": "espnet"}
    checked(tmp_path, other, {"encoder": "cif_conformer"})
    assert not caplog.text
    checked(tmp_path, other, encoder(attention_heads=2))
    assert "encoder_conf.attention_heads is 4" in caplog.text


@pytest.mark.parametrize("keys", [":decoder:decoder", ":encoder.embed:encoder.embed"])
def test_other_parts_are_not_compared(tmp_path, keys):
    checked(tmp_path, (), encoder(num_blocks=3), keys)


def test_without_a_config_nothing_is_compared(tmp_path):
    check_command(["--init_param", f"{tmp_path}/a.pth:encoder:encoder"])


@pytest.mark.parametrize("keys", [":encoder:encoder", ""])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("utterance_mvn", "global_mvn"),
        ("global_mvn", "utterance_mvn"),
        (None, "global_mvn"),
    ],
)
def test_another_kind_of_normalisation_is_refused(
    tmp_path, caplog, first, second, keys
):
    made, here = {"normalize": first}, {"normalize": second}
    message = f"normalize is {first!r} in .*config.yaml and {second!r} here"
    with pytest.raises(UserError, match=message) as caught:
        checked(tmp_path, made, here, keys)
    text = str(caught.value)
    assert "--feats_normalize" in text and "\n" not in text
    assert not caplog.text
    checked(tmp_path, made, here, keys, "--ignore_init_mismatch", "true")
    assert re.search(message, caplog.text)
    caplog.clear()
    # A recogniser.
    checked(tmp_path, {**made, "model": "espnet"}, here, keys)
    assert re.search(message, caplog.text)


def test_other_statistics_are_reported(tmp_path, caplog):
    def mvn(name):
        return {"normalize": "global_mvn", "normalize_conf": {"stats_file": name}}

    checked(tmp_path, mvn("a"), mvn("a"))
    start = f"{tmp_path}/exp/valid.loss.ave.pth:normalize:normalize"
    words = ("--init_param", start)
    assert not caplog.text
    checked(tmp_path, mvn("a"), mvn("b"))
    assert "also give --init_param FILE:normalize:normalize" in caplog.text
    caplog.clear()
    check_command(
        [
            *("--config", str(tmp_path / "here.yaml")),
            *("--init_param", f"{tmp_path}/exp/valid.loss.ave.pth:encoder:encoder"),
            *words,
        ]
    )
    assert not caplog.text


def test_a_criterion_checks_the_arguments():
    args = ASRTask.get_parser().parse_args([])
    args.specaug = "specaug"
    args.model_conf = {"criteria": {"a": {"type": "frames", "teachers": {"x": tone()}}}}
    with pytest.raises(UserError, match=r"criteria\.a: SpecAugment's time warp moves"):
        check_arguments(args)
    args.specaug_conf = {"apply_time_warp": False}
    check_arguments(args)


@pytest.mark.parametrize("words", [["--help"], ["--no_such_option"], ["--config", "x"]])
def test_a_command_line_that_espnet_refuses_is_left_to_it(words, capfd):
    check_command(words)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_launcher_checks_before_the_training(tmp_path, run_python):
    config = {
        **BASE,
        "specaug": "specaug",
        "model": "pretrain",
        "model_conf": {"criterion": "frames", "criterion_conf": {"teachers": {}}},
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    command = ["espnet_cif_hkd", "-m", "espnet2.bin.asr_train"]
    config_file = str(tmp_path / "a.yaml")
    found = run_python("-m", *command, "--config", config_file, "--token_list", "x")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("error: criterion_conf.teachers")
