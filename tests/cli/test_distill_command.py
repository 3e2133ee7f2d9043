"""The command that stores teacher vectors, on files as a recipe has them."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.cli.dump_teacher import main
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.store.reader import StoredTeacher, StoreReader
from espnet_cif_hkd.teachers.text.online import OnlineTeacher
from espnet_cif_hkd.teachers.text.plm import TeacherConfig

CHARS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "<sos/eos>"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plm(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("plm"))


@pytest.fixture
def recipe(tmp_path, plm, monkeypatch):
    """A recipe folder with a configuration, a token list and two text files."""
    monkeypatch.chdir(tmp_path)
    conf = {"teacher": plm, "teacher_dim": HIDDEN, "teacher_store": "store"}
    config = {"model_conf": {"criterion": "hkd", "criterion_conf": conf}}
    Path("train.yaml").write_text(yaml.safe_dump(config))
    Path("tokens.txt").write_text("\n".join(CHARS) + "\n")
    Path("text1").write_text("u1 THE CAT\nu2 IT'S É  X \nu3\n", encoding="utf-8")
    Path("text2").write_text("u4 THE CAT\nu5 PLAY\n", encoding="utf-8")
    return [
        *("--asr_config", "train.yaml", "--token_list", "tokens.txt"),
        *("--token_type", "char", "--text", "text1", "text2"),
    ]


def test_command_stores_what_espnet_reads(recipe, plm, tmp_path, caplog):
    caplog.set_level("INFO")
    main(recipe)
    assert "4 sentences (24 tokens) added" in caplog.text
    assert "1 tokens of the new sentences are <unk>" in caplog.text
    from espnet2.train.preprocessor import CommonPreprocessor

    preprocessor = CommonPreprocessor(
        train=True, token_type="char", token_list="tokens.txt"
    )
    texts = ["THE CAT", "IT'S É  X", "", "PLAY"]
    ids = [preprocessor("u", {"text": t})["text"].tolist() for t in texts]
    online = OnlineTeacher(TeacherConfig(plm, HIDDEN), CHARS)
    torch.testing.assert_close(
        StoredTeacher("store", online).features(ids, CPU),
        online.features(ids, CPU),
        rtol=2**-10,
        atol=1e-3,
    )


def test_command_takes_the_tokens_of_an_experiment(recipe, caplog):
    caplog.set_level("INFO")
    config = yaml.safe_load(Path("train.yaml").read_text())
    config |= {"token_list": CHARS, "token_type": "char", "bpemodel": None}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main(["--train_config", "config.yaml", "--text", "text1", "--store", "other"])
    assert "3 sentences" in caplog.text
    stored = StoreReader(Path("other"), Payload("tokens", HIDDEN))
    assert len(stored) == 3 and not Path("store").exists()
    main(recipe)
    main(["--train_config", "config.yaml", "--text", "text1", "text2"])
    assert "0 sentences (0 tokens) added" in caplog.text


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"--text": "none"}, "none: this text file does not exist"),
        ({"--asr_config": "none.yaml"}, "none.yaml: cannot be read"),
        ({"--token_list": "none.txt"}, "none.txt: cannot be read"),
        ({"--token_list": "text1"}, "has no <unk>"),
        ({"--token_type": "bpe"}, "--bpemodel is needed"),
        ({"--token_type": "none"}, "--token_type is needed"),
        ({"--token_type": "phn"}, "token_type phn"),
    ],
)
def test_command_says_what_is_wrong(recipe, capsys, change, match):
    command = list(recipe)
    for option, value in change.items():
        command[command.index(option) + 1] = value
    with pytest.raises(SystemExit) as caught:
        main(command)
    error = capsys.readouterr().err
    assert caught.value.code == 1
    assert error.startswith("error: ") and error.count("\n") == 1 and match in error


def test_command_needs_a_criterion_and_a_store(recipe, capsys):
    for model_conf, match in [
        ({}, "names no criterion"),
        ({"criterion": "hkd", "criterion_conf": {}}, "teacher_store is not set"),
    ]:
        Path("train.yaml").write_text(yaml.safe_dump({"model_conf": model_conf}))
        with pytest.raises(SystemExit):
            main(recipe)
        assert match in capsys.readouterr().err
