"""FOTAQ's --unlabelled: speech without transcripts for the first training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from fotaq_fixture import load
from recorded_recipe import RecordedRecipe
from stock_cases import pretrain, run_stages

from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe import paths

RATE = 11025
unlabelled = load("fotaq_unlabelled")


def write(path: Path, seconds: float, rate: int = RATE, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, np.tile(wave[:, None], (1, channels)), rate)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of two utterances."""
    folder = tmp_path / "dump/raw/train"
    paths = {f"u{n}": write(tmp_path / f"u{n}.flac", n) for n in (1, 2)}
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text("".join(f"{k} {p}\n" for k, p in paths.items()))
    (folder / "utt2num_samples").write_text(f"u1 {RATE}\nu2 {2 * RATE}\n")
    return folder


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Any format, rate, depth and number of channels; one is short, one is no audio."""
    folder = tmp_path / "speech"
    write(folder / "long.ogg", 5.0)
    write(folder / "deep/er/stereo.wav", 1.5, 16000, 2)
    write(folder / "short.WAV", 0.2)
    (folder / "broken.flac").write_text("no audio")
    write(folder / "click.wav", 2 / 48000, 48000)  # no sample at RATE
    (folder / "notes.txt").write_text("no audio")
    return folder


def run(data: Path, speech: Path, *more: str) -> tuple[int, Path]:
    target = data.with_name("unlabelled")
    words = ["--data_dir", data, "--audio", speech, "--target", target, *more]
    return unlabelled.main([*map(str, words)]), target


def test_pieces_and_utterances_are_in_one_table(
    data: Path, speech: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, target = run(data, speech, "--longest", "2")
    assert code == 0
    printed = capfd.readouterr().out
    assert "2 utterances of" in printed and "4 pieces without transcripts" in printed
    assert "1 are shorter than 0.5 s" in printed and "broken.flac" in printed
    wav, sizes = (read_table(target / name) for name in unlabelled.TABLES)
    assert list(wav) == list(sizes) and {"u1", "u2"} < set(wav)
    new = {name for name in wav if name.startswith("unlabelled-")}
    for name in new:
        found = soundfile.info(wav[name])
        assert (found.samplerate, found.channels) == (RATE, 1)
        assert found.frames == int(sizes[name]) <= 2 * RATE
    # 5 s become three pieces of the same length; nothing is lost.
    lengths = sorted(int(sizes[name]) for name in new)
    assert lengths[1:] == [RATE * 5 // 3] * 3 and abs(lengths[0] - 1.5 * RATE) < 50


def test_a_second_call_makes_only_what_is_missing(data: Path, speech: Path) -> None:
    _, target = run(data, speech, "--longest", "2")
    tables = [(target / name).read_bytes() for name in unlabelled.TABLES]
    made = sorted((target / "audio").iterdir())
    states = [path.stat().st_mtime_ns for path in made]
    # The pieces of an interrupted recording: the first are missing.
    names = [path.name.rpartition("-")[0] for path in made]
    long = next(name for name in names if names.count(name) == 3)
    (target / "audio" / f"{long}-0000.flac").unlink()
    assert run(data, speech, "--longest", "2")[0] == 0
    assert tables == [(target / name).read_bytes() for name in unlabelled.TABLES]
    again = [path.stat().st_mtime_ns for path in sorted(made)]
    changed = [a != b for a, b in zip(states, again, strict=True)]
    assert changed == [name == long for name in names]


def test_a_copied_recipe_has_the_same_names(
    data: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path.with_name(f"{tmp_path.name}_copy")
    shutil.copytree(tmp_path, copy)
    names = []
    for folder in (tmp_path, copy):
        monkeypatch.chdir(folder)
        _, target = run(folder / data.relative_to(tmp_path), Path(speech.name))
        names.append(list(read_table(target / "wav.scp")))
    assert names[0] == names[1] and len(names[0]) > 2


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("absent", "absent: is no folder"),
        ("empty", "empty: has no audio file"),
        ("bad", "no recording of --unlabelled can be read: "),
    ],
)
def test_refused_in_one_line(
    data: Path,
    tmp_path: Path,
    folder: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("empty", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad/one.wav").write_text("no audio")
    assert run(data, tmp_path / folder)[0] == 1
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if "error: " in line
    ]
    assert message in line


@pytest.fixture
def recipe(tmp_path: Path) -> RecordedRecipe:
    made = RecordedRecipe("fotaq", tmp_path / "recipe")
    for name in ("more", "other"):
        (made.folder / name).mkdir()
    return made


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


WORDS = ("--pretrain", "true", "--system", "cif", "--unlabelled", "more other")


def test_what_run_sh_calls(recipe: RecordedRecipe) -> None:
    done = recipe.run(*WORDS, "--pretrain_args", "--max_epoch 3")
    assert done.returncode == 0, done.stderr
    first, second = recipe.trainings()
    assert (first.stage, first.stop_stage, second.stage) == (1, 10, 10)
    assert first.asr_tag == "pretrain_unlabelled"
    best = "exp/asr_pretrain_unlabelled/valid.loss.ave.pth"
    assert second.pretrained_model == f"{best}:encoder:encoder"
    joined, stored, trained = [
        words for words in recipe.python() if "speech_teacher.sh" not in words[0]
    ][-3:]
    assert joined == [
        "local/fotaq_unlabelled.py",
        *("--target", "dump/raw/unlabelled", "--data_dir", "dump/raw/train"),
        *("--audio", "more", "other"),
    ]
    assert stored[1] == "espnet_cif_hkd.cli.dump_speech_teacher"
    assert stored[-2:] == ["dump/raw/unlabelled", "dump/raw/dev"]
    assert trained[1] == "espnet_cif_hkd.cli.pretrain"
    assert trained[-2:] == ["--max_epoch", "3"]
    assert "dump/raw/unlabelled/wav.scp,speech,sound" in trained
    assert "exp/asr_pretrain_unlabelled" in trained


def joined_stored_trained(recipe: RecordedRecipe) -> list[list[str]]:
    kinds = ("fotaq_unlabelled.py", ".dump_speech_teacher", "cli.pretrain")
    return [
        next(words for words in recipe.python() if any(kind in w for w in words))
        for kind in kinds
    ]


@pytest.mark.parametrize("ngpu", ["0", "1", "2"])
def test_options_of_both_trainings(recipe: RecordedRecipe, ngpu: str) -> None:
    done = recipe.run(
        *(*WORDS, "--ngpu", ngpu, "--feats_normalize", "global_mvn"),
        *("--train_set", "train_2000", "--valid_set=dev_9"),
        *("--speed_perturb_factors", "0.9 1.0 1.1"),
    )
    assert done.returncode == 0, done.stderr
    first, second = recipe.trainings()
    joined, stored, trained = joined_stored_trained(recipe)
    assert option(joined, "--data_dir") == "dump/raw/train_2000_sp"
    assert option(joined, "--target") == "dump/raw/unlabelled_sp"
    assert stored[-2:] == ["dump/raw/unlabelled_sp", "dump/raw/dev_9"]
    assert option(trained, "--train_shape_file").startswith("dump/raw/unlabelled_sp/")
    assert option(trained, "--valid_shape_file").startswith("dump/raw/dev_9/")
    assert option(trained, "--ngpu") == ngpu
    assert ("--multiprocessing_distributed" in trained) == (ngpu == "2")
    assert option(trained, "--normalize") == "global_mvn"
    for one in (first, second):
        assert (one.train_set, one.valid_set) == ("train_2000", "dev_9")
        assert (one.ngpu, one.feats_normalize) == (int(ngpu), "global_mvn")
        assert one.speed_perturb_factors == "0.9 1.0 1.1"
        # Those of the complete set.
        assert one.bpe_train_text == one.lm_train_text == "data/train/text"
        stats = paths.derive(one).asr_stats_dir
        assert option(trained, "--normalize_conf") == (
            f"stats_file={stats}/train/feats_stats.npz"
        )


@pytest.mark.parametrize(
    ("words", "stats"),
    [
        ([], "exp/asr_stats_raw_en_char"),
        (["--subset", "7"], "exp/subset_7/asr_stats_raw_en_7_char"),
        (["--asr_stats_dir", "mine"], "mine"),
        (["--token_type", "bpe"], "exp/asr_stats_raw_en_char"),
    ],
)
def test_both_trainings_read_one_file_of_statistics(
    recipe: RecordedRecipe, words: list[str], stats: str
) -> None:
    recipe.run(*WORDS, "--feats_normalize", "global_mvn", *words)
    *_, trained = joined_stored_trained(recipe)
    assert option(trained, "--normalize_conf") == (
        f"stats_file={stats}/train/feats_stats.npz"
    )
    for one in recipe.trainings():
        assert str(paths.derive(one).asr_stats_dir) == stats


def test_without_global_statistics(recipe: RecordedRecipe) -> None:
    recipe.run(*WORDS)
    *_, trained = joined_stored_trained(recipe)
    assert "--normalize" not in trained and option(trained, "--ngpu") == "0"


def test_a_configuration_of_the_first_training(recipe: RecordedRecipe) -> None:
    one = recipe.folder / "conf/one_teacher.yaml"
    one.write_text("model: pretrain\n")
    done = recipe.run(*WORDS, "--pretrain_config", "conf/one_teacher.yaml")
    assert done.returncode == 0, done.stderr
    _, stored, trained = joined_stored_trained(recipe)
    assert option(stored, "--asr_config") == "conf/one_teacher.yaml"
    assert option(trained, "--config") == "conf/one_teacher.yaml"
    assert option(trained, "--output_dir") == "exp/asr_one_teacher_unlabelled"
    assert recipe.trainings()[0].asr_config == "conf/one_teacher.yaml"


def test_stages_and_subsets(recipe: RecordedRecipe) -> None:
    recipe.run(*WORDS, "--stop_stage", "10")
    assert [one.stop_stage for one in recipe.trainings()] == [10]
    assert not any("fotaq_unlabelled" in words[0] for words in recipe.python())
    recipe.run(*WORDS, "--stage", "11", "--subset", "7", "--pretrain_tag", "mine")
    assert [one.stage for one in recipe.trainings()] == [11]
    (joined,) = [w for w in recipe.python() if "fotaq_unlabelled" in w[0]]
    assert "dump/subset_7/raw/train_7" in joined
    assert "exp/subset_7/asr_mine/" in recipe.trainings()[-1].pretrained_model
    recipe.run(*WORDS, "--stage", "12")
    assert [one.stage for one in recipe.trainings()] == [12] and not recipe.python()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unlabelled", "more"], "only --pretrain true reads speech without"),
        (["--unlabelled", "no", "--pretrain", "true"], "--unlabelled no: there is no"),
    ],
)
def test_refused_before_anything(
    recipe: RecordedRecipe, words: list[str], message: str
) -> None:
    done = recipe.run("--system", "cif", *words)
    assert done.returncode == 2 and message in done.stderr and not recipe.calls()


def test_a_failed_first_training_is_the_end(recipe: RecordedRecipe) -> None:
    (recipe.folder / "python").write_text(
        '#!/bin/sh\ncase "$*" in *cli.pretrain*) echo "error: no speech"; exit 1;;'
        " esac\n"
    )
    done = recipe.run(*WORDS)
    assert done.returncode == 1 and len(recipe.trainings()) == 1
    assert done.stderr.splitlines()[-1] == "error: no speech"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_trainings_on_a_miniature(
    tmp_path: Path, speech: Path, forked_python: str
) -> None:
    """The first reads the training set and the pieces, the second starts from it."""
    folder = tmp_path / "recipe"
    options = [*pretrain(folder, curves=False), "--unlabelled", str(speech)]
    run_stages(folder, options, False, 1, 11, forked_python)
    joined = read_table(folder / "dump/raw/unlabelled/wav.scp")
    train = read_table(folder / "dump/raw/train/wav.scp")
    new = set(joined) - set(train)
    assert len(new) == 2 and set(train) < set(joined)
    first = folder / "exp/asr_pretrain_unlabelled"
    assert (first / "valid.loss.ave.pth").is_file()
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert config["train_shape_file"] == ["dump/raw/unlabelled/utt2num_samples"]
    second = yaml.safe_load((folder / "exp/asr_tiny/config.yaml").read_text())
    assert second["init_param"] == [
        "exp/asr_pretrain_unlabelled/valid.loss.ave.pth:encoder:encoder"
    ]
