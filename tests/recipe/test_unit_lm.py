"""train_unit_lm: a language model of any unit, trained by ESPnet's lm_train."""

from pathlib import Path

import pytest
import torch
import yaml

from espnet_cif_hkd.cli.train_unit_lm import main
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import unit_lm
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher
from espnet_cif_hkd.teachers.lm.units import build_unit

LEXICON = {"BAD": "B AE D", "CAB": "K AE B", "DAB": "D AE B", "ABAD": "AH B AE D"}
PHONES = ["<blank>", "<unk>", "AE", "AH", "B", "D", "K", "<sos/eos>"]
LETTERS = ["<blank>", "<unk>", "<space>", *"ABCD", "<sos/eos>"]
TRAIN = ["BAD CAB", "CAB DAB", "", "DAB ABAD", "BAD BAD CAB"]
VALID = ["CAB BAD", "ABAD"]
CONFIG = {
    "lm": "transformer",
    "lm_conf": {"embed_unit": 8, "att_unit": 8, "head": 2, "unit": 8, "layer": 1},
    "optim": "adam",
    "batch_type": "length",
    "batch_bins": 40,
    "max_epoch": 2,
    "num_workers": 0,
    "num_att_plot": 0,
    "use_matplotlib": False,
    "use_tensorboard": False,
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": 2,
}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, lines in (("train", TRAIN), ("valid", VALID)):
        rows = (f"utt{n} {line}".rstrip() for n, line in enumerate(lines))
        Path(f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    entries = (f"{word} {phones}\n" for word, phones in LEXICON.items())
    Path("lexicon.txt").write_text("".join(entries))
    Path("phones.txt").write_text("".join(f"{one}\n" for one in PHONES))
    Path("letters.txt").write_text("".join(f"{one}\n" for one in LETTERS))
    Path("lm.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


UNITS = {
    "phone": [
        *("--unit", "lexicon", "--lexicon", "lexicon.txt"),
        *("--unit_token_list", "phones.txt"),
    ],
    "char": ["--unit", "char", "--unit_token_list", "letters.txt"],
    "token": ["--unit", "token", "--token_list", "letters.txt", "--token_type", "char"],
}


def train(unit: str = "phone", *more: str, out: str = "exp/lm") -> None:
    """Run the command; later options override."""
    main(
        [
            *("--text", "train.txt", "--valid_text", "valid.txt", "--out_dir", out),
            *("--lm_config", "lm.yaml", *UNITS[unit], *more),
        ]
    )


def refused(capsys: pytest.CaptureFixture[str], unit: str = "phone", *more: str) -> str:
    """The one line of an error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train(unit, *more)
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


EXPECTED = {
    "phone": ["B AE D K AE B", "K AE B D AE B", "D AE B AH B AE D"],
    "char": ["B A D <space> C A B", "C A B <space> D A B", "D A B <space> A B A D"],
}
EXPECTED["token"] = EXPECTED["char"]


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_espnet_trains_on_the_units(inside: Path, unit: str) -> None:
    train(unit)
    text = read_table("exp/lm/text/train.txt")
    assert [*text.values()][:3] == EXPECTED[unit]
    assert len(text) == 4, "a sentence without units is left out"
    config = yaml.safe_load(Path("exp/lm/config.yaml").read_text())
    tokens = PHONES if unit == "phone" else LETTERS
    assert config["token_list"] == tokens and config["token_type"] == "word"
    # It is a teacher of this unit.
    conf = {"unit": "lexicon", "lexicon": "lexicon.txt", "lm": "exp/lm"}
    teacher = build_lm_teacher(conf, tokens)
    teacher.check()
    found = teacher.targets([[2, 3, 4], [5]], torch.device("cpu"))
    assert found.sizes == [3, 1]


@pytest.mark.slow
def test_shapes_are_those_that_espnet_collects(inside: Path) -> None:
    from espnet2.bin.lm_train import main as lm_train

    train()
    text = "exp/lm/text"
    lm_train(
        [
            *("--collect_stats", "true", "--output_dir", "exp/stats", "--ngpu", "0"),
            *("--use_preprocessor", "true", "--token_type", "word"),
            *("--token_list", f"{text}/tokens.txt", "--config", "lm.yaml"),
            *("--train_data_path_and_name_and_type", f"{text}/train.txt,text,text"),
            *("--valid_data_path_and_name_and_type", f"{text}/valid.txt,text,text"),
            *("--train_shape_file", f"{text}/train.txt"),
            *("--valid_shape_file", f"{text}/valid.txt"),
        ]
    )
    for part in ("train", "valid"):
        theirs = read_table(f"exp/stats/{part}/text_shape")
        ours = read_table(f"{text}/{part}_shape.word")
        assert ours == {name: f"{n},{len(PHONES)}" for name, n in theirs.items()}


@pytest.mark.slow
def test_a_second_run_does_only_what_is_left(
    inside: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Path("exp/lm/valid.loss.ave.pth")
    train()
    trained = model.resolve().stat().st_mtime_ns
    capfd.readouterr()
    train()
    assert "exp/lm: the language model is up to date" in capfd.readouterr().out
    assert model.resolve().stat().st_mtime_ns == trained
    # More epochs continue the training.
    train("phone", "--lm_args", "--max_epoch 3")
    log = Path("exp/lm/train.log").read_text()
    assert "3epoch results" in log and "1epoch results" not in log
    assert not Path("exp/lm/.incomplete-9").exists()


@pytest.mark.parametrize("named_by", ["--lm_args", "--lm_config"])
def test_other_initial_parameters_make_another_model(
    inside: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    trained: list[str] = []

    def training(lm: unit_lm.UnitLM, tokens: Path) -> None:
        trained.append(lm.more)
        for name in ("config.yaml", unit_lm.MODEL):
            (lm.folder / name).write_text("trained")

    monkeypatch.setattr(unit_lm, "_train", training)
    Path("begin.lm").write_text("some")
    named = {**CONFIG, "init_param": ["begin.lm"]}
    Path("named.yaml").write_text(yaml.safe_dump(named))
    words = {"--lm_args": "--init_param begin.lm", "--lm_config": "named.yaml"}
    for times, content in ((1, "some"), (2, "other")):
        Path("begin.lm").write_text(content)
        train("char", named_by, words[named_by])
        train("char", named_by, words[named_by])
        assert len(trained) == times


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Path("train.txt").write_text("utt0 DAB\n"), "the training data have"),
        (
            lambda: Path("phones.txt").write_text(
                "\n".join([*PHONES[:-1], "ZH", PHONES[-1], ""])
            ),
            "another token list than exp/lm/text/tokens.txt (8 tokens, not 9)",
        ),
        (
            lambda: Path("lm.yaml").write_text(
                yaml.safe_dump({**CONFIG, "optim": "sgd"})
            ),
            "trained with optim adam, and this run has sgd",
        ),
    ],
    ids=["text", "labels", "options"],
)
def test_a_trained_model_is_not_spoilt(
    inside: Path, capsys: pytest.CaptureFixture[str], change: object, message: str
) -> None:
    train()
    before = {path: path.read_bytes() for path in Path("exp/lm").glob("*.pth")}
    config = Path("exp/lm/config.yaml").read_bytes()
    assert callable(change)
    change()
    error = refused(capsys)
    assert message in error and "another --out_dir, or remove exp/lm" in error
    assert before == {path: path.read_bytes() for path in Path("exp/lm").glob("*.pth")}
    assert config == Path("exp/lm/config.yaml").read_bytes()


def test_a_model_of_another_program_is_kept(
    inside: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("exp/lm").mkdir(parents=True)
    Path("exp/lm/config.yaml").write_text("lm: seq_rnn\n")
    train()
    assert "was not made here; used without changes" in capfd.readouterr().out
    assert [path.name for path in Path("exp/lm").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("unit", "more", "message"),
    [
        ("phone", ["--text", "no.txt"], "no.txt: this text file does not exist"),
        ("phone", ["--valid_text", "no.txt"], "no.txt: this text file does not exist"),
        ("phone", ["--lm_config", "no.yaml"], "--lm_config no.yaml: there is no such"),
        ("phone", ["--lm_args", "--max_epochs 3"], "unrecognized arguments"),
        (
            "phone",
            ["--lm_args", "--best_model_criterion train,loss,min"],
            "--lm_config lm.yaml: best_model_criterion must contain",
        ),
        ("phone", ["--lexicon", "none.txt"], "none.txt"),
        ("char", ["--unit_token_list", "phones.txt"], "labels of the text are not in"),
        ("char", ["--unit", "token"], "--unit token needs --token_list"),
        ("char", ["--unit", "aligned"], "--unit aligned: a text has no labels of an a"),
        ("phone", ["--valid_text", "empty.txt"], "the text for valid has no labels"),
        ("phone", ["--text", "odd.txt"], "words have no pronunciation in lexicon.txt"),
    ],
)
def test_bad_input_is_one_line(
    inside: Path,
    capsys: pytest.CaptureFixture[str],
    unit: str,
    more: list[str],
    message: str,
) -> None:
    Path("empty.txt").write_text("utt0\n")
    Path("odd.txt").write_text("utt0 XYLOPHONE\n")
    assert message in refused(capsys, unit, *more)
    assert not list(inside.rglob("*.pth"))


def test_labels_that_espnet_would_split(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [*LETTERS[:-1], "A B", LETTERS[-1]]
    Path("letters.txt").write_text("".join(f"{one}\n" for one in tokens))
    assert "the label 'A B' of the unit contains white space" in refused(capsys, "char")


def test_units_are_those_of_the_label_store(inside: Path) -> None:
    """Labels are looked up by the units of the recogniser's tokens."""
    from functools import partial

    from espnet_cif_hkd.cli.train_unit_lm import unit_sentences
    from espnet_cif_hkd.distill.filling import preprocessor_options

    tokens = preprocessor_options({"token_list": "letters.txt", "token_type": "char"})
    conf = {"unit": "lexicon", "lexicon": "lexicon.txt", "unit_token_list": PHONES}
    unit = build_unit({**conf, "unknown_words": "unk"}, LETTERS, "char")
    Path("odd.txt").write_text("utt0 CAB  QUA BAD\n")
    read = partial(unit_sentences, unit, paths=[Path("odd.txt")])
    expected = ["K", "AE", "B", "<unk>", "B", "AE", "D"]
    assert [*read(tokens)] == [*read(None)] == [expected]
