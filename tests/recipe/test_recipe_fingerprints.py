"""Which options and files make which stages run again with --reuse true."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_recipe
from tiny_bert import HIDDEN, build_tiny_bert

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import options, paths, plan
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages import (
    decode,
    filter_data,
    format_audio,
    lm,
    tokens,
    train,
)

# Stages that read text as tokens, the list itself included.
TOKENS = "5 6 7 8 10 11 12"
# Every option: another value, and the stages that do not keep their output. That is in
# another folder, or has another fingerprint. None: no other value is supported.
INFLUENCE: dict[str, tuple[str | None, str]] = {
    "stage": ("2", ""),
    "stop_stage": ("9", ""),
    "skip_stages": ("3", ""),
    "skip_data_prep": ("true", ""),
    "skip_train": ("true", "1 3"),
    "skip_eval": ("true", ""),
    "skip_packing": ("false", ""),
    "skip_upload_hf": ("false", ""),
    "eval_valid_set": ("true", "12"),
    "ngpu": ("2", "7 8 11"),
    "num_nodes": ("2", "7 8 11"),
    "nj": ("3", ""),
    "inference_nj": ("3", ""),
    "gpu_inference": ("true", ""),
    "dumpdir": ("other", "3 4 5 6 7 8 10 11 12"),
    "expdir": ("other", "6 7 8 10 11 12"),
    "local_data_opts": ("--a b", "1"),
    "post_process_local_data_opts": ("--a b", "4"),
    "speed_perturb_factors": ("0.9 1.0", "3 4 5 10 11 12"),
    "feats_type": (None, ""),
    "audio_format": ("wav", "3"),
    "fs": ("16k", "3 4 10 11"),
    "min_wav_duration": ("0.2", "4"),
    "max_wav_duration": ("9", "4"),
    "token_type": ("char", TOKENS),
    "nbpe": ("9", TOKENS),
    "bpemode": ("bpe", TOKENS),
    "oov": ("<x>", "5"),
    "blank": ("<x>", "5"),
    "sos_eos": ("<x>", "5"),
    "bpe_input_sentence_size": ("9", "5"),
    "bpe_nlsyms": ("<x>", "5"),
    "bpe_char_cover": ("0.9", "5"),
    "hugging_face_model_name_or_path": ("x", ""),
    "use_lm": ("false", "12"),
    "lm_tag": ("x", "7 8 12"),
    "lm_exp": ("exp/x", "7 8 12"),
    "lm_stats_dir": ("exp/x", "6"),
    "lm_config": ("conf/asr.yaml", "6 7 8 12"),
    "lm_args": ("--seed 2", "6 7 8 12"),
    "num_splits_lm": ("2", "7 8"),
    "asr_tag": ("x", "11 12"),
    "asr_exp": ("exp/x", "11 12"),
    "asr_stats_dir": ("exp/x", "10"),
    "asr_config": ("conf/cif.yaml", "10 11 12"),
    "asr_args": ("--seed 2", "10 11 12"),
    "pretrained_model": ("a.pth", "11"),
    "ignore_init_mismatch": ("true", "11"),
    "num_splits_asr": ("2", "11"),
    "feats_normalize": ("utterance_mvn", "10 11"),
    "use_streaming": ("true", "12"),
    "batch_size": ("2", "12"),
    "inference_tag": ("x", "12"),
    "inference_config": ("conf/lm.yaml", "12"),
    "inference_args": ("--nbest 2", "12"),
    "inference_lm": ("1.pth", "8 12"),
    "inference_asr_model": ("1.pth", "12"),
    # Stages 13 to 15 always run.
    "score_opts": ("-s", ""),
    "local_score_opts": ("x", ""),
    "hf_repo": ("a/b", ""),
    "hyp_cleaner": ("tacotron", ""),
    "train_set": ("more", "1 3 4 5 10 11"),
    "test_sets": ("test more", "1 3 12"),
    "valid_set": ("more", "1 3 4 6 7 8 10 11"),
    "bpe_train_text": ("data/more/text", "5"),
    "lm_train_text": ("a b", "4"),
    "lm_dev_text": ("a", "6 7 8"),
    "lm_test_text": ("a", "8"),
    "nlsyms_txt": ("a", TOKENS),
    "cleaner": ("tacotron", TOKENS),
    "g2p": ("g2p_en", TOKENS),
    "lang": ("en", TOKENS),
    "asr_speech_fold_length": ("9", "11"),
    "asr_text_fold_length": ("9", "11"),
    "lm_fold_length": ("9", "7 8"),
    "reuse": ("true", ""),
    # What it drops counts, see test_recipe_dropped.py.
    "drop_too_long": ("true", ""),
    "drop_empty_text": ("true", "3"),
    "channel": ("0", "3"),
    "hf_private": ("true", ""),
    "hosts": ("a,b", "7 8 11"),
    "user_module": ("tiny_recipe", "10 11 12"),
}


def make_run(**changed: str) -> Run:
    words = {"token_type": "bpe", "nbpe": "8", "use_lm": "true", **changed}
    parsed = options.parse(tiny_recipe.options(**words))
    return Run(parsed, paths.derive(parsed), [], [])


def identities(run: Run) -> dict[str, object]:
    """Of each stage: where its output is, and what it depends on."""
    at = run.paths
    return {
        "1": plan._data_fingerprint(run),
        "3": {
            format_audio.target_dir(run, name): format_audio.fingerprint(run, name)
            for name in format_audio.data_sets(run)
        },
        "4": (at.train_dir, filter_data.fingerprint(run)),
        "5": (at.token_list, tokens.fingerprint(run)),
        "6": (at.lm_stats_dir, lm.stats_fingerprint(run)),
        "7": (at.lm_exp, lm.fingerprint(run)),
        "8": (at.lm_exp, lm.perplexity_fingerprint(run)),
        "10": (at.asr_stats_dir, train.stats_fingerprint(run)),
        "11": (at.asr_exp, train.fingerprint(run)),
        "12": [
            (at.inference_dir() / name, decode.fingerprint(run, name))
            for name in run.eval_sets()
        ],
    }


def changed(before: dict[str, object], after: dict[str, object]) -> str:
    return " ".join(stage for stage in before if before[stage] != after[stage])


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that has run as far as fingerprints look."""
    monkeypatch.chdir(tmp_path)
    tiny_recipe.make(tmp_path)
    tiny_recipe.write_set(tmp_path, "more", 2)
    (tmp_path / "source").rename(tmp_path / "data")
    for name in ("train", "train_sp", "valid", "more", "test"):
        source = Path("data") / name.removesuffix("_sp")
        for target in ("dump/raw/org", "dump/raw"):
            folder = Path(target) / name
            folder.mkdir(parents=True)
            for table in ("wav.scp", "text", "utt2spk"):
                (folder / table).write_text((source / table).read_text())
            counts = "".join(f"{key} 9\n" for key in read_table(folder / "text"))
            (folder / "utt2num_samples").write_text(counts)
            (folder / "feats_type").write_text("raw\n")
            stamps.finish(folder, 3, f"{folder} as it is")
    Path("data/train_sp").mkdir()
    for table in ("wav.scp", "text", "utt2spk"):
        Path("data/train_sp", table).write_text(Path("data/train", table).read_text())
    at = make_run().paths
    for path in (
        *("dump/raw/lm_train.txt", at.token_list, at.bpemodel, "conf/nlsyms"),
        *(f"{exp}/{f}" for exp in (at.lm_exp, at.asr_exp) for f in ("config.yaml",)),
        f"{at.lm_exp}/valid.loss.ave.pth",
        f"{at.asr_exp}/valid.acc.ave.pth",
        "data/.inputs",
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("as it is\n")
    Path("data/.inputs").write_text("corpus\nsound\n$CORPUS\n")
    Path("corpus").write_text("read by local/data.sh\n")
    return tmp_path


@pytest.mark.slow
def test_every_option_makes_the_right_stages_run_again(recipe: Path) -> None:
    assert list(INFLUENCE) and set(INFLUENCE) == {
        field.name for field in dataclasses.fields(options.Options)
    }, "a new option needs a line above"
    before = identities(make_run())
    found = {
        name: changed(before, identities(make_run(**{name: value})))
        for name, (value, _) in INFLUENCE.items()
        if value is not None
    }
    expected = {name: s for name, (value, s) in INFLUENCE.items() if value is not None}
    assert found == expected


def test_the_tokenizer_of_hugging_face_is_one_of_them(recipe: Path) -> None:
    words = {"token_type": "hugging_face", "use_lm": "false"}
    (recipe / "one").mkdir()
    one = make_run(**words, hugging_face_model_name_or_path="one")
    other = make_run(**words, hugging_face_model_name_or_path="other")
    before = identities(one)
    assert changed(before, identities(other)) == TOKENS
    (recipe / "one/vocab.txt").write_text("a\n")
    assert changed(before, identities(one)) == TOKENS


def append(path: str) -> Callable[[], None]:
    def change() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("a") as stream:
            stream.write("changed\n")

    return change


def other_audio() -> None:
    """Stage 3 has made audio files with other content and the same names."""
    for name in ("org/train", "test"):
        stamps.finish(Path("dump/raw") / name, 3, "of other recordings")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (append("local/data.sh"), "1"),
        (append("local/__pycache__/data.pyc"), ""),
        (append("local/.data.sh.swp"), ""),
        (append("db.sh"), "1"),
        (append("corpus"), "1"),
        (append("sound/train/more.wav"), "1"),
        (lambda: os.environ.update(CORPUS="elsewhere"), "1"),
        (append("data/train/text"), "3"),
        (append("sound/train/spk0-train0.wav"), "1 3"),
        (append("dump/raw/org/train/text"), "4 5"),
        (append("dump/raw/train/text"), "10 11"),
        (append("dump/raw/lm_train.txt"), "6 7 8"),
        (append("data/token_list/bpe_unigram8/tokens.txt"), "6 7 8 10 11 12"),
        (append("data/token_list/bpe_unigram8/bpe.model"), "6 7 8 10 11 12"),
        (append("conf/nlsyms"), TOKENS),
        (append("conf/lm.yaml"), "6 7 8"),
        (append("conf/asr.yaml"), "10 11"),
        (append("start.pth"), "11"),
        (append("other_start.pth"), "11"),
        (append("language_start.pth"), "7 8"),
        (append("conf/symbols"), "5"),
        (append("conf/decode.yaml"), "12"),
        (append("words.bin"), "12"),
        (append("exp/lm_lm_bpe8/config.yaml"), "12"),
        (append("exp/lm_lm_bpe8/valid.loss.ave.pth"), "8 12"),
        (append("exp/asr_x/valid.acc.ave.pth"), "12"),
        (append("exp/asr_x/config.yaml"), "12"),
        (other_audio, "10 11 12"),
    ],
)
def test_changed_files(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[], None],
    expected: str,
) -> None:
    monkeypatch.setenv("CORPUS", "here")
    run = make_run(
        asr_tag="x",
        nlsyms_txt="conf/nlsyms",
        pretrained_model="start.pth:encoder:encoder",
        asr_args="--init_param other_start.pth:a:b",
        lm_args="--init_param language_start.pth",
        lm_tag="lm_bpe8",
        bpe_nlsyms="conf/symbols",
        inference_args="--ngram_file words.bin",
    )
    before = identities(run)
    change()
    assert changed(before, identities(run)) == expected


@pytest.mark.parametrize(
    ("option", "lines", "expected"),
    [
        ("asr_config", "init_param: [named.bin:encoder:encoder]", "11"),
        ("asr_config", "preprocessor_conf: {rir_scp: named.bin}", "11"),
        ("lm_config", "init_param: named.bin", "7 8"),
        ("inference_config", "ngram_file: named.bin", "12"),
        ("inference_config", "# named.bin", ""),
    ],
)
def test_files_that_a_configuration_names(
    recipe: Path, option: str, lines: str, expected: str
) -> None:
    kind = {"asr_config": "asr", "lm_config": "lm", "inference_config": "decode"}
    text = Path(f"conf/{kind[option]}.yaml").read_text()
    Path("conf/naming.yaml").write_text(f"{text}{lines}\n")
    run = make_run(**{option: "conf/naming.yaml"})
    before = identities(run)
    append("named.bin")()
    assert changed(before, identities(run)) == expected
    Path("named.bin").write_text("other\n")
    assert changed(before, identities(run)) == expected


@pytest.mark.parametrize(
    "option",
    ["bpe_nlsyms", "nlsyms_txt", "asr_args", "lm_args", "inference_args"],
)
def test_a_value_may_be_longer_than_the_name_of_a_file(
    recipe: Path, option: str
) -> None:
    tags = {"asr_tag": "x", "lm_tag": "x", "inference_tag": "x"}
    before = identities(make_run(**tags))
    words = ";".join(f"<{number}>" for number in range(99))
    assert changed(before, identities(make_run(**tags, **{option: words})))


def test_the_teacher_and_its_store(recipe: Path) -> None:
    teacher = build_tiny_bert(recipe / "bert")
    conf = {"teacher": teacher, "teacher_dim": HIDDEN, "teacher_store": "store"}
    text = tiny_recipe.CIF_CONFIG.replace(
        "ctc_weight: 0.5", f"ctc_weight: 0.5, criterion: hkd, criterion_conf: {conf}"
    )
    Path("conf/hkd.yaml").write_text(text)
    run = make_run(asr_config="conf/hkd.yaml")
    for path in ("bert/model.safetensors", "bert/tokenizer.json", "store/header.json"):
        before = identities(run)
        append(path)()
        assert changed(before, identities(run)) == "11", path
    # More sentences in the store are no change of those that are there.
    before = identities(run)
    append("store/0001.safetensors")()
    assert changed(before, identities(run)) == ""
    # The same teacher, named on the command line.
    plain = make_run(
        asr_config="conf/cif.yaml",
        asr_args=f"--model_conf criterion_conf.teacher={teacher}",
    )
    before = identities(plain)
    append("bert/model.safetensors")()
    assert changed(before, identities(plain)) == "11"


@pytest.mark.parametrize("content", ["a: [\n", "- 1\n", "model_conf: 7\n", None])
def test_a_configuration_that_cannot_be_read_is_left_to_the_checks(
    recipe: Path, content: str | None
) -> None:
    before = identities(make_run())
    Path("conf/asr.yaml").unlink()
    if content is not None:
        Path("conf/asr.yaml").write_text(content)
    assert changed(before, identities(make_run())) == "10 11"


@pytest.mark.parametrize("method", ["files", "states"])
def test_a_missing_file_is_not_an_empty_one(tmp_path: Path, method: str) -> None:
    marks = set()
    for _ in range(2):
        mark = stamps.Fingerprint()
        marks.add(getattr(mark, method)(tmp_path / "a").hexdigest())
        (tmp_path / "a").touch()
    assert len(marks) == 2
