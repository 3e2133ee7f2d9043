"""The commands of the recipes' READMEs: the engine takes their options."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_recipe import RecordedRecipe

from espnet_cif_hkd.recipe import plan

EGS2 = Path(__file__).parents[2] / "egs2"
CORPORA = ("aishell", "fotaq", "hsk", "librispeech")


def readme(corpus: str) -> str:
    return (EGS2 / corpus / "asr_hkd/README.md").read_text(encoding="utf-8")


def commands(corpus: str) -> Iterator[str]:
    """Each ``./run.sh`` of the README after the assignments of its block."""
    text = readme(corpus)
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        given = [line for line in lines if re.fullmatch(r'\w+=("[^"]*"|\S+)', line)]
        for line in lines:
            if re.match(r"(\w+=\S+ )*\./run\.sh", line):
                yield "\n".join([*given, line])
    prose = re.sub("^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(\./run\.sh [^`]+)`", prose)


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_commands_of_a_readme(corpus: str, tmp_path: Path) -> None:
    recipe = RecordedRecipe(corpus, tmp_path / "recipe")
    (recipe.folder / "downloads/uqm_voice").mkdir(parents=True)  # --unlabelled
    (recipe.folder / "FOLDER").mkdir()  # --pseudo_labels
    for name in re.findall(r"--labeller ((?:exp|downloads)/\S+)", readme(corpus)):
        (recipe.folder / name).mkdir(parents=True)
        file = "config.yaml" if name.startswith("exp/") else "tokenizer.json"
        (recipe.folder / name / file).touch()
    (recipe.folder / "downloads/whisper").mkdir(parents=True)  # whisper_decoder
    (recipe.folder / "downloads/whisper/model.safetensors").touch()
    found = list(commands(corpus))
    assert len(found) >= 8
    for command in found:
        (recipe.folder / "command.sh").write_text(command)
        done = recipe.run(script="command.sh")
        assert done.returncode == 0, (command, done.stderr)
        trainings = recipe.trainings()
        assert trainings, command
        stages = {stage for one in trainings for stage in plan.selected(one)}
        if trainings[-1].use_lm and 12 in stages:
            assert 7 in stages, f"{command}: no stage trains the language model"
