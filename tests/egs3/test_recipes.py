"""Recipes of egs3 on miniature corpora, through all stages, on pip packages alone."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import espnet3_case as case
import pytest
import stock_cases
import torch
import yaml

pytestmark = [pytest.mark.espnet3, pytest.mark.slow]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
DECODE = {
    "model": {
        "beam_size": 2,
        "maxlenratio": -6,
        "asr_model_file": "${exp_dir}/valid.acc.ave_2best.pth",
    }
}
EXP = Path("exp/tiny")


@pytest.fixture(scope="module")
def run_in(forked_python: str) -> Run:
    def run(folder: Path, *stages: str, **options: object) -> object:
        return case.run(folder, *stages, python=forked_python, **options)

    return run


def made(folder: Path, corpus: str, base: str, run_in: Run, **model: object) -> Path:
    """A recipe after all its stages."""
    options = case.lay_out(corpus, folder)
    recipe = folder / "egs3"
    case.write_conf(
        recipe,
        "tiny",
        base,
        model=case.small_model(folder, **model),
        trainer=case.TRAINER,
        dataloader=case.LOADER,
        best_model_criterion=[["valid/acc", 2, "max"]],
    )
    case.write_conf(recipe, "decode", "inference", **DECODE)
    run_in(recipe, *case.STAGES, **case.ROLES)
    (folder / "options.json").write_text(json.dumps(options))
    return recipe


@pytest.fixture(scope="module")
def fotaq(tmp_path_factory: pytest.TempPathFactory, run_in: Run) -> Path:
    """FOTAQ with a teacher in a store."""
    folder = tmp_path_factory.mktemp("fotaq")
    return made(folder, "fotaq", "training_cif_hkd", run_in, taught=True)


@pytest.fixture(scope="module")
def aishell(tmp_path_factory: pytest.TempPathFactory, run_in: Run) -> Path:
    """AISHELL without a teacher."""
    folder = tmp_path_factory.mktemp("aishell")
    return made(folder, "aishell", "training_cif", run_in)


@pytest.mark.parametrize("corpus", ["fotaq", "aishell"])
def test_all_stages_run(corpus: str, request: pytest.FixtureRequest) -> None:
    recipe: Path = request.getfixturevalue(corpus)
    scores = json.loads((recipe / EXP / "decode/metrics.json").read_text())
    for kind in ("CER", "WER"):
        rates = scores[f"espnet_cif_hkd.recipe.espnet3.metrics.{kind}"]
        assert {name: list(rate) for name, rate in rates.items()} == {
            "dev": [kind],
            "test": [kind],
        }
    names = (recipe / "data/test/text").read_text().splitlines()
    text = (recipe / EXP / "decode/test/text.scp").read_text().splitlines()
    assert [line.split()[0] for line in text] == sorted(n.split()[0] for n in names)


def test_the_teacher_taught(fotaq: Path) -> None:
    assert (fotaq / "data/teacher_store/header.json").is_file()
    [log] = (fotaq / EXP).glob("lightning_logs/*/metrics.csv")
    header, first, *_ = log.read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    for name in ("loss_acd", "loss_lrd", "cer_free", "length_error"):
        assert math.isfinite(float(row[f"valid/{name}"]))


def test_the_average_has_the_last_epoch(fotaq: Path) -> None:
    def load(path: Path) -> dict[str, torch.Tensor]:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("state_dict", state)

    epochs = [load(path) for path in sorted((fotaq / EXP).glob("epoch*.ckpt"))]
    mean = load(fotaq / EXP / "valid.acc.ave_2best.pth")
    name = "decoder.output_layer.weight"
    assert len(epochs) == 2 and not torch.equal(epochs[0][name], epochs[1][name])
    torch.testing.assert_close(mean[name], (epochs[0][name] + epochs[1][name]) / 2)


@pytest.fixture(scope="module")
def engine(fotaq: Path, forked_python: str) -> Path:
    """FOTAQ's recipe of egs2 after stage 13, on the same miniature."""
    folder = fotaq.parent / "egs2"
    options = json.loads((fotaq.parent / "options.json").read_text())
    words = ["--system", "cif", *options]
    words[words.index("--test_sets") + 1] = "dev test"
    stock_cases.run_stages(folder, words, False, 1, 13, forked_python)
    return folder


def test_tokens_are_those_of_egs2(fotaq: Path, engine: Path) -> None:
    [old] = engine.glob("data/*token_list/char/tokens.txt")
    assert (fotaq / "data/token_list/char/tokens.txt").read_text() == old.read_text()


def test_scores_of_a_checkpoint_are_those_of_egs2(
    fotaq: Path, engine: Path, run_in: Run
) -> None:
    exp = engine / "exp/asr_tiny"
    files = {
        "asr_train_config": str(exp / "config.yaml"),
        "asr_model_file": str(exp / "valid.acc.ave.pth"),
    }
    conf = {"model": {**DECODE["model"], **files}}
    case.write_conf(fotaq, "of_egs2", "inference", **conf)
    run_in(fotaq, "infer", "measure", **{**case.ROLES, "inference": "of_egs2"})
    folder = fotaq / EXP / "of_egs2"
    scores = json.loads((folder / "metrics.json").read_text())
    # asr.sh decodes the validation set without the limits on lengths.
    for name, place in (("dev", "org/dev"), ("test", "test")):
        old = exp / "decoded" / place
        texts = [line.rstrip() for line in (old / "text").read_text().splitlines()]
        new = (folder / name / "text.scp").read_text().splitlines()
        assert [line.rstrip() for line in new] == texts
        for kind in ("cer", "wer"):
            errors, units = errors_of(old / f"score_{kind}")
            rates = scores[f"espnet_cif_hkd.recipe.espnet3.metrics.{kind.upper()}"]
            assert errors > 0
            assert rates[name][kind.upper()] == round(100 * errors / units, 2)


def errors_of(folder: Path) -> tuple[int, int]:
    """Errors and units in the report of stage 13."""
    text = (folder / "result.txt").read_text()
    scores = re.findall(r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", text)
    counts = [sum(map(int, column)) for column in zip(*scores, strict=True)]
    correct, substituted, deleted, inserted = counts
    return substituted + deleted + inserted, correct + substituted + deleted


def test_two_dask_workers_decode_as_one_process(
    fotaq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not forked: the workers are new processes that import everything themselves."""
    # They do not answer meanwhile; the machine may be busy.
    for name in ("COMM__TIMEOUTS__TCP", "COMM__TIMEOUTS__CONNECT"):
        monkeypatch.setenv(f"DASK_DISTRIBUTED__{name}", "600s")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "3600s")
    workers = {"n_workers": 2, "options": {"processes": True, "threads_per_worker": 1}}
    test = yaml.safe_load((fotaq / "conf/inference.yaml").read_text())["dataset"][
        "test"
    ]
    dataset = {"test": [one for one in test if one["name"] == "test"]}
    case.write_conf(fotaq, "parallel", "decode", parallel=workers, dataset=dataset)
    case.run(fotaq, "infer", **{**case.ROLES, "inference": "parallel"})
    new, old = fotaq / EXP / "parallel/test", fotaq / EXP / "decode/test"
    assert (new / "text.scp").read_text() == (old / "text.scp").read_text()
    assert len(list(new.glob("split.*/done"))) == 2


BUNDLE = """
import sys, soundfile
import espnet_cif_hkd
from espnet3.publication.inference_model import InferenceModel

samples, rate = soundfile.read(sys.argv[1], dtype="float32")
espnet_cif_hkd.register()
model = InferenceModel.from_packed("bundle", trust_user_code=True)
print("bundle:", model(sys.argv[1])["text"])
ours = espnet_cif_hkd.Speech2Text("espnet2/config.yaml", "espnet2/model.pth",
                                  beam_size=2, ctc_weight=0.3, maxlenratio=-6)
print("files:", ours(samples)[0][0])
"""


def test_the_bundle_decodes_elsewhere(
    fotaq: Path, tmp_path: Path, forked_python: str
) -> None:
    """Also ESPnet 2's way: the configuration needs no other file."""
    shutil.copytree(fotaq / EXP / "model_pack", tmp_path / "bundle")
    (tmp_path / "espnet2").mkdir()
    shutil.copy(fotaq / EXP / "config.yaml", tmp_path / "espnet2")
    model = tmp_path / "espnet2/model.pth"
    shutil.copy(fotaq / EXP / "valid.acc.ave_2best.pth", model)
    entry = (fotaq / "data/test/wav.scp").read_text().splitlines()[0]
    expected = (fotaq / EXP / "decode/test/text.scp").read_text().splitlines()
    done = subprocess.run(
        [forked_python, "-m", "espnet_cif_hkd", "-c", BUNDLE, fotaq / entry.split()[1]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    texts = dict(
        line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line
    )
    words = " ".join(expected[0].split()[1:])
    assert words
    assert texts["bundle"].strip() == texts["files"].strip() == words


def test_the_bundle_has_no_local_paths_and_no_texts(fotaq: Path) -> None:
    bundle = fotaq / EXP / "model_pack"
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".yaml", ".md", ".json", ".py", ".pth"}
    rows = (fotaq / "data/test/text").read_text().splitlines()
    local = [str(fotaq.parent), "site-packages"]
    for path in files:
        if path.suffix != ".pth":
            content = path.read_text()
            texts = [row.split(maxsplit=1)[1] for row in rows]
            assert not [word for word in [*local, *texts] if word in content]
    card = (bundle / "README.md").read_text()
    assert "| test |" in card


def test_without_a_model_one_line_names_the_stage(fotaq: Path, run_in: Run) -> None:
    case.write_conf(fotaq, "none", "decode", model={"asr_model_file": "exp/no.pth"})
    done = run_in(fotaq, "infer", fails=True, **{**case.ROLES, "inference": "none"})
    [line] = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    assert "run the stage train" in line
    assert "Traceback" not in done.stderr


def test_wrong_options_of_a_criterion_are_refused_first(
    fotaq: Path, run_in: Run
) -> None:
    conf = {"criterion_conf": {"teacher_dim": 13}}
    case.write_conf(fotaq, "wrong", "tiny", model={"model_conf": conf})
    roles = {**case.ROLES, "training": "wrong"}
    done = run_in(fotaq, "create_dataset", fails=True, **roles)
    [line] = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    assert "teacher_dim" in line
    assert "Traceback" not in done.stderr


def test_the_configuration_keeps_its_normalisation(fotaq: Path) -> None:
    """ESPnet's statistics remove it from the configuration of later stages."""
    conf = yaml.safe_load((fotaq / EXP / "model_pack/conf/training.yaml").read_text())
    assert conf["model"]["normalize"] == "utterance_mvn"
