"""The token type hugging_face: its folders, its files and what is refused."""

import subprocess
from pathlib import Path

import librispeech_fixture as fixture
import pytest
import yaml
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_lines
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe.checks import preflight
from espnet_cif_hkd.recipe.checks.texts import _Tokenizer
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages import tokens

wordpiece = fixture.load("wordpiece")

TEXTS = ("THE CAT'S PLAYING", "IT IS THE CATS' PLAY", "'TIS", "FORTY TWO")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(build_tiny_bert(tmp_path_factory.mktemp("teacher")))


@pytest.fixture
def folder(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder after stage 4, with a tokenizer folder ``data/wordpiece``."""
    monkeypatch.chdir(tmp_path)
    conf = {"teacher": str(bert), "teacher_dim": HIDDEN}
    Path("asr.yaml").write_text(
        yaml.safe_dump({"model_conf": {"criterion_conf": conf}})
    )
    assert wordpiece.main(["--asr_config", "asr.yaml"]) == 0
    lines = "".join(f"utt{n} {text}\n" for n, text in enumerate(TEXTS))
    for name in ("lm_train.txt", "train/text"):
        path = Path("dump/raw", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    return tmp_path


def _options(*more: str) -> list[str]:
    return [
        *("--train_set", "train", "--valid_set", "dev", "--test_sets", "test"),
        *("--token_type", "hugging_face", "--use_lm", "false", "--lang", "en", *more),
    ]


def _run(name: str = "data/wordpiece") -> Run:
    words = _options("--hugging_face_model_name_or_path", name)
    parsed = options.parse(words)
    return Run(parsed, paths.derive(parsed), words, [5])


def _asr_sh(name: str) -> str:
    """How asr.sh writes a tokenizer's name into its folders."""
    script = 'name=$1; echo "${name/\\//-}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", name], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["wp", "data/wordpiece", "/a/b/c", "google/bert_x"])
def test_folders_are_named_as_by_asr_sh(name: str) -> None:
    found, tag = _run(name).paths, _asr_sh(name)
    listed = Path("data/en_token_list") / f"hugging_face_{tag}/tokens.txt"
    assert found.token_list == listed
    assert found.bpemodel == name
    assert found.asr_exp == Path("exp") / f"asr_train_raw_en_hugging_face_{tag}"
    assert found.asr_stats_dir == Path("exp") / f"asr_stats_raw_en_hugging_face_{tag}"
    assert found.lm_stats_dir == Path("exp/lm_stats_en_hugging_face")


def test_stage_5_writes_what_espnet_exports(folder: Path) -> None:
    run = _run()
    tokens.make_token_list(run)
    listed = read_lines(run.paths.token_list)
    assert listed[:2] == ["<blank>", "<unk>"] and listed[-1] == "<sos/eos>"
    assert {"'", "##'", "##ing", "the", "a", "##a"} < set(listed)
    # Nothing that LibriSpeech cannot spell: no digits, no accents, no Chinese.
    assert not {"42", "café", "你", "[CLS]", "##0"} & set(listed)
    assert preflight.check_token_list(run) == listed
    assert [path.name for path in tokens.tokenizer_files(run)] == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert tokens.up_to_date(run)
    with (folder / "data/wordpiece/tokenizer.json").open("a") as changed:
        changed.write("\n")
    assert not tokens.up_to_date(run)


def test_text_comes_back_and_each_piece_meets_one_of_the_teacher(
    folder: Path, bert: Path
) -> None:
    from espnet2.text.hugging_face_token_id_converter import HuggingFaceTokenIDConverter
    from espnet2.text.hugging_face_tokenizer import HuggingFaceTokenizer
    from transformers import AutoTokenizer

    from espnet_cif_hkd.teachers.text.alignment import align
    from espnet_cif_hkd.teachers.text.spelling import TokenSpeller

    run = _run()
    tokens.make_token_list(run)
    tokens.check_restored(run)
    tokenizer = HuggingFaceTokenizer("data/wordpiece")
    converter = HuggingFaceTokenIDConverter("data/wordpiece")
    speller = TokenSpeller(read_lines(run.paths.token_list))
    teacher = AutoTokenizer.from_pretrained(str(bert))
    for text in TEXTS:
        cut = tokenizer.text2tokens(text)
        assert tokenizer.tokens2text(cut) == text.lower()
        assert tokenizer.tokens2text(["<blank>", *cut, "<sos/eos>"]) == text.lower()
        spelling = speller(converter.tokens2ids(cut))
        assert spelling.text == text.lower()
        aligned = align(spelling, teacher, 48)
        # [CLS] is nobody's; then one piece after the other, and [SEP] for <eos>.
        assert aligned.columns == list(range(1, len(cut) + 2))
        assert aligned.weights == [1.0] * (len(cut) + 1)
    assert tokenizer.text2tokens("CAT'S")[-2:] == ["##'", "##s"]
    # A search can begin with a piece that continues nothing.
    assert tokenizer.tokens2text(["##s", "##a", "cat", "##'"]) == "sa cat'"


def test_words_that_the_tokenizer_does_not_know_are_named(folder: Path) -> None:
    from espnet2.train.preprocessor import CommonPreprocessor

    run = _run()
    tokens.make_token_list(run)
    tokenizer = _Tokenizer(
        CommonPreprocessor(
            train=False,
            token_type="hugging_face",
            token_list=read_lines(run.paths.token_list),
            bpemodel="data/wordpiece",
        )
    )
    for text in (*TEXTS, "IT IS 42", "你 IS 你"):
        tokenizer(text)
    assert tokenizer.unknown == {"你": 2, "42": 1}


def test_a_tokenizer_that_changes_text_is_refused(folder: Path, bert: Path) -> None:
    with pytest.raises(UserError, match=r"changes 4 of 4 texts.*the cat ' s play"):
        tokens.check_restored(_run(str(bert)))
    run = _run(str(bert))
    tokens.make_token_list(run)
    with pytest.raises(UserError, match=r"must begin with <blank>.*local/wordpiece.py"):
        preflight.check_token_list(run)


def test_what_the_options_refuse() -> None:
    with pytest.raises(UserError, match="needs --hugging_face_model_name_or_path"):
        options.parse(_options())
    with pytest.raises(UserError, match="trains no language model on such tokens"):
        options.parse(
            _options("--hugging_face_model_name_or_path", "wp", "--use_lm", "true")
        )


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ("model_conf: {criterion: null}", "sets no model_conf.criterion_conf.teacher"),
        (
            "model_conf: {criterion_conf: {teacher: ./nowhere, teacher_dim: 12}}",
            "teacher ./nowhere: this folder does not exist",
        ),
    ],
)
def test_what_wordpiece_refuses(
    folder: Path, capsys: pytest.CaptureFixture[str], conf: str, message: str
) -> None:
    Path("bad.yaml").write_text(conf)
    assert wordpiece.main(["--asr_config", "bad.yaml"]) == 1
    assert message in capsys.readouterr().err
    assert wordpiece.main(["--asr_config", "none.yaml"]) == 1
    assert "none.yaml: no such file" in capsys.readouterr().err


def test_a_teacher_without_wordpieces_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def fast(model: models.Model) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))

    with pytest.raises(UserError, match=r"not WordPiece.*--units bpe"):
        wordpiece.pieces(fast(models.BPE()))
    vocab = {letter: n for n, letter in enumerate("abc")}
    with pytest.raises(UserError, match=r"lacks ##' ##a ##b.*--units bpe"):
        wordpiece.pieces(fast(models.WordPiece(vocab, unk_token="a")))


def test_an_unchanged_tokenizer_keeps_its_date(folder: Path) -> None:
    path = folder / "data/wordpiece/tokenizer.json"
    before = path.stat().st_mtime_ns
    assert wordpiece.main(["--asr_config", "asr.yaml"]) == 0
    assert path.stat().st_mtime_ns == before
