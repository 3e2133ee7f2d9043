"""What run.sh and local/data.sh of LibriSpeech ask for."""

from pathlib import Path

import librispeech_fixture as fixture
import pytest

from espnet_cif_hkd.recipe import options, paths


def _run(tmp_path: Path, *arguments: str) -> options.Options:
    """The options that run.sh gives to the engine."""
    words = fixture.words_of(tmp_path, "run.sh", *arguments, ESPNET_ROOT="")
    assert words[:2] == ["-m", "espnet_cif_hkd.recipe"]
    return options.parse(words[2:])


def test_the_sets_are_those_of_espnet(tmp_path: Path) -> None:
    asked = _run(tmp_path)
    assert asked.train_set == "train_960"
    assert asked.valid_set == "dev"
    assert asked.test_sets == "test_clean test_other dev_clean dev_other"
    assert (asked.token_type, asked.nbpe, asked.lang) == ("bpe", 5000, "en")
    assert asked.bpe_train_text == "data/train_960/text"
    assert asked.feats_normalize == "utterance_mvn"
    assert asked.inference_asr_model == "train.total_count.ave.pth"
    assert asked.local_data_opts == "--hours 960 --lm_text false --incomplete false"
    assert not asked.use_lm and asked.lm_train_text == "data/train_960/text"
    exp = paths.derive(asked).asr_exp
    assert exp == Path("exp/asr_train_asr_cif_hkd_raw_en_bpe5000")


@pytest.mark.parametrize("system", ["cif", "acd", "lrd", "hkd"])
def test_each_system_has_a_configuration(tmp_path: Path, system: str) -> None:
    name = "cif" if system == "cif" else f"cif_{system}"
    asked = _run(tmp_path, "--system", system)
    assert asked.asr_config == f"conf/train_asr_{name}.yaml"
    assert (fixture.RECIPE / asked.asr_config).is_file()
    for config in (asked.lm_config, asked.inference_config):
        assert (fixture.RECIPE / config).is_file()


def test_100_hours_share_nothing_with_960(tmp_path: Path) -> None:
    complete = paths.derive(_run(tmp_path))
    asked = _run(tmp_path, "--hours", "100", "--asr_args", "--seed 2")
    part = paths.derive(asked)
    assert asked.train_set == "train_clean_100"
    assert asked.bpe_train_text == "data/train_clean_100/text"
    assert asked.asr_args == "--max_epoch 248 --scheduler_conf max_steps=80000 --seed 2"
    for name in ("data_feats", "token_list", "asr_stats_dir", "asr_exp", "lm_exp"):
        assert getattr(part, name) != getattr(complete, name)


def test_wordpieces_are_those_of_the_configured_teacher(tmp_path: Path) -> None:
    asked = _run(tmp_path, "--units", "wordpiece")
    config = "conf/train_asr_cif_hkd_wordpiece.yaml"
    assert asked.asr_config == config and (fixture.RECIPE / config).is_file()
    assert asked.token_type == "hugging_face"
    assert asked.local_data_opts.endswith(f"--wordpiece {config}")
    where = paths.derive(asked)
    assert where.bpemodel == "data/wordpiece"
    assert where.token_list == Path(
        "data/en_token_list/hugging_face_data-wordpiece/tokens.txt"
    )
    assert where.asr_exp.name.endswith("_raw_en_hugging_face_data-wordpiece")
    other = _run(tmp_path, "--units=wordpiece", "--asr_config", "conf/mine.yaml")
    assert other.local_data_opts.endswith("--wordpiece conf/mine.yaml")


def test_a_language_model_needs_its_text(tmp_path: Path) -> None:
    asked = _run(tmp_path, "--use_lm", "true")
    assert asked.use_lm and "--lm_text true" in asked.local_data_opts
    assert asked.lm_train_text == "data/train_960/text data/local/other_text/text"
    assert asked.inference_config == "conf/decode_asr_lm.yaml"


def test_options_of_stage_1_pass(tmp_path: Path) -> None:
    asked = _run(tmp_path, "--data_url=http://x", "--remove_archive", "true")
    assert asked.local_data_opts.endswith("--data_url http://x --remove_archive true")


def test_options_of_asr_sh_pass(tmp_path: Path) -> None:
    asked = _run(tmp_path, "--ngpu", "1", "--speed_perturb_factors", "0.9 1.0 1.1")
    assert (asked.ngpu, asked.speed_perturb_factors) == (1, "0.9 1.0 1.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--system", "rnn"],
            "error: --system rnn: choose cif, acd, lrd, hkd, soft, tr",
        ),
        (["--hours", "460"], "error: --hours 460: choose 960 or 100"),
        (["--units=char"], "error: --units char: choose bpe or wordpiece"),
        (["--hours"], "error: --hours needs a value"),
        (["--units", "wordpiece", "--system", "cif"], "error: --units wordpiece --sys"),
        (
            ["--units", "wordpiece", "--use_lm", "true"],
            "error: --units wordpiece --use",
        ),
    ],
)
def test_run_sh_refuses(arguments: list[str], message: str) -> None:
    done = fixture.shell("run.sh", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)


def _data(tmp_path: Path, *arguments: str, **environment: str) -> list[str]:
    words = fixture.words_of(tmp_path, "local/data.sh", *arguments, **environment)
    assert Path(words[0]).name == "librispeech_prepare.py"
    return words[1:]


def test_where_the_corpus_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _data(tmp_path)[:2] == ["--corpus", "downloads"]
    Path("db.sh").write_text("LIBRISPEECH=/from/db\n")
    assert _data(tmp_path)[:2] == ["--corpus", "/from/db"]
    assert _data(tmp_path, LIBRISPEECH="/mine")[:2] == ["--corpus", "/mine"]


def test_data_sh_takes_what_asr_sh_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = _data(
        tmp_path, "--hours", "100", "--lm_text=true", "--data_url", "http://x"
    )
    assert asked[2:] == [
        *("--hours", "100", "--incomplete", "false", "--lm_text", "true"),
        *("--remove_archive", "false", "--data_url", "http://x"),
    ]
    words = fixture.words_of(tmp_path, "local/data.sh", "--wordpiece", "conf/a.yaml")
    assert Path(words[0]).name == "wordpiece.py"
    assert words[1:] == ["--asr_config", "conf/a.yaml"]
    done = fixture.shell("local/data.sh", "--asr_data_dir", "dump/raw/train_960")
    assert done.returncode == 0
    assert "nothing to do for dump/raw/train_960" in done.stdout
    done = fixture.shell("local/data.sh", "--sub", "5")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("has no option --sub")
    assert fixture.shell("local/data.sh").returncode == 1  # PYTHON fails


def test_the_recipe_names_its_own_folder_of_the_corpus() -> None:
    lines = (fixture.RECIPE / "db.sh").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "LIBRISPEECH=downloads"
    ]
