"""The engine's options, and the names that follow from them."""

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import options, paths
from espnet_cif_hkd.recipe import plan as stages

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]


def parse(*words: str) -> options.Options:
    return options.parse([*SETS, *words])


def test_the_defaults_of_asr_sh() -> None:
    found = parse()
    assert (found.nj, found.inference_nj, found.ngpu) == (32, 32, 1)
    assert (found.token_type, found.nbpe, found.bpemode) == ("bpe", 30, "unigram")
    assert (found.fs, found.audio_format) == ("16k", "flac")
    assert (found.min_wav_duration, found.max_wav_duration) == (0.1, 20)
    assert found.use_lm
    assert found.inference_asr_model == "valid.acc.ave.pth"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--asr_confg", "x"], "did you mean --asr_config"),
        (["--use_lm", "yes"], "--use_lm takes true or false"),
        (["--nj", "many"], "--nj takes a number"),
        (["--nj", "0"], "--nj must be 1 or more"),
        (["--stage"], "--stage needs a value"),
        (["--stage=3"], "write --stage 3 without '='"),
        (["--stage", "99"], "--stage 99 does not exist"),
        (["--stage", "5", "--stop_stage", "3"], "comes before --stage 5"),
        (["--skip_stages", "3 x"], "--skip_stages 'x' does not exist"),
        (["stray"], "no positional arguments"),
        (
            ["--config", "f"],
            "--config, Kaldi.s file .* or set ESPNET_ROOT",
        ),
        (["--use_ngram", "true"], "--use_ngram true .* set ESPNET_ROOT"),
        (["--asr_task", "asr_transducer"], "--asr_task .* set ESPNET_ROOT"),
        (["--use_k2", "true"], "--use_k2 true .* set ESPNET_ROOT"),
        (["--num_ref", "2"], "--num_ref 2 .* set ESPNET_ROOT"),
        (["--feats_type", "fbank_pitch"], "--feats_type .* set ESPNET_ROOT"),
        (["--token_type", "phn"], "--token_type phn .* set ESPNET_ROOT"),
        (["--train_set", "dev"], "--train_set and --valid_set are both dev"),
        (["--test_sets", "train"], "--test_sets contains the training set"),
        (["--test_sets", ""], "--test_sets is required"),
    ],
)
def test_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(*words)
    assert "\n" not in str(caught.value)


def test_values_that_asr_sh_has_by_default_are_taken() -> None:
    found = parse(
        "--use_ngram", "false", "--skip_upload_hf", "true", "--use-lm", "false"
    )
    assert not found.use_lm


def test_the_validation_set_among_the_test_sets_is_decoded_from_org() -> None:
    found = parse("--test_sets", "dev test test")
    assert found.eval_valid_set
    assert found.test_sets == "test"


def test_folder_names_of_a_plain_run() -> None:
    found = paths.derive(
        parse(
            *("--lang", "en", "--token_type", "char", "--use_lm", "false"),
            *("--asr_config", "conf/train_asr_cif.yaml"),
            *("--inference_config", "conf/decode_asr.yaml"),
        )
    )
    assert str(found.asr_exp) == "exp/asr_train_asr_cif_raw_en_char"
    assert str(found.asr_stats_dir) == "exp/asr_stats_raw_en_char"
    assert str(found.token_list) == "data/en_token_list/char/tokens.txt"
    assert found.inference_tag == "decode_asr_asr_model_valid.acc.ave"
    assert found.lm_train_text == "dump/raw/org/train/text"
    assert found.lm_dev_text == "dump/raw/org/dev/text"
    assert found.lm_test_text == "dump/raw/test/text"
    assert found.bpemodel == "none"


def test_folder_names_with_arguments_language_model_and_speed() -> None:
    found = paths.derive(
        parse(
            *("--nbpe", "500", "--speed_perturb_factors", "0.9 1.0 1.1"),
            *("--asr_args", "--max_epoch 3 --optim_conf lr=0.1 --init_param a/b"),
            *("--lm_args", "--max_epoch 2", "--lm_config", "conf/tuning/lm.v2.yaml"),
            *("--inference_args", "--lm_weight 0.1 --nbest=2"),
            *("--inference_asr_model", "sub/10epoch.pth"),
        )
    )
    assert str(found.asr_exp) == (
        "exp/asr_train_raw_bpe500_max_epoch3_optim_conflr0.1_init_paramab_sp"
    )
    assert str(found.asr_stats_dir) == "exp/asr_stats_raw_bpe500_sp"
    assert str(found.lm_exp) == "exp/lm_lm.v2_bpe500_max_epoch2"
    assert str(found.lm_stats_dir) == "exp/lm_stats_bpe500"
    assert found.inference_tag == (
        "inference_lm_weight0.1_nbest2_lm_lm_lm.v2_bpe500_max_epoch2_valid.loss.ave"
        "_asr_model_sub_10epoch"
    )
    assert str(found.train_dir) == "dump/raw/train_sp"
    assert found.lm_train_text == found.bpe_train_text == "data/train/text"
    assert found.bpemodel == "data/token_list/bpe_unigram500/bpe.model"


def test_given_folders_win_over_tags() -> None:
    found = paths.derive(
        parse("--asr_exp", "exp/mine", "--asr_tag", "x", "--inference_tag", "fast")
    )
    assert str(found.asr_exp) == "exp/mine"
    assert found.inference_tag == "fast"
    assert str(paths.derive(parse("--asr_tag", "x")).asr_exp) == "exp/asr_x"


@pytest.mark.parametrize("kind", ["asr", "lm", "inference"])
def test_a_name_that_no_file_system_takes(kind: str) -> None:
    words = [f"--{kind}_args", "--max_epoch 12 " * 25]
    with pytest.raises(UserError, match=f"give a short name with --{kind}_tag") as e:
        paths.derive(parse(*words))
    assert "\n" not in str(e.value)
    paths.derive(parse(*words, f"--{kind}_tag", "short"))
    if kind == "lm":
        paths.derive(parse(*words, "--use_lm", "false"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]),
        (["--use_lm", "false", "--stage", "5"], [5, 10, 11, 12, 13]),
        (["--skip_data_prep", "true"], [6, 7, 8, 10, 11, 12, 13]),
        (["--skip_train", "true"], [1, 3, 12, 13]),
        (["--skip_eval", "true", "--stage", "11"], [11]),
        (["--skip_stages", "1 2 3", "--stop_stage", "5"], [4, 5]),
        (["--skip_packing", "false", "--stage", "13"], [13, 14]),
    ],
)
def test_stages_selected_as_by_asr_sh(words: list[str], expected: list[int]) -> None:
    assert stages.selected(parse(*words)) == expected


@pytest.mark.parametrize(
    ("text", "rate"), [("16k", 16000), ("11025", 11025), ("11.025k", 11025)]
)
def test_sampling_rates(text: str, rate: int) -> None:
    assert paths.sampling_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "", "0", "-8k"])
def test_what_is_no_sampling_rate(text: str) -> None:
    with pytest.raises(UserError, match="not a sampling rate"):
        paths.sampling_rate(text)
