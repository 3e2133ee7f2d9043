"""A tiny recogniser with a language model, taught by a BERT, packed by stage 14."""

import os
import shutil
from pathlib import Path

import pytest
import tiny_recipe
from finished_recipe import run
from made_once import made_once
from tiny_bert import HIDDEN, build_tiny_bert

NAME = "asr_hkd_raw_en_char"
EXP = Path("exp") / NAME
ARCHIVE = EXP / f"{NAME}_valid.acc.ave.zip"
RECORDING = Path("sound/test/spk1-test1.wav")
DECODING = {"beam_size": 2, "ctc_weight": 0.3, "lm_weight": 0.1, "maxlenratio": -5.0}
OPTIONS = {"asr_config": "conf/hkd.yaml", "use_lm": "true"}


@pytest.fixture(scope="session")
def packed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe after stage 14 whose teacher is gone; not to be changed by tests."""

    def make(top: Path) -> Path:
        return _pack(finished, top)

    return made_once(tmp_path_factory, "packed_model", make)


def _pack(finished: Path, top: Path) -> Path:
    folder = top / "egs2" / "tones" / "asr_hkd"
    shutil.copytree(finished, folder)
    teacher = build_tiny_bert(top / "bert")
    conf = f"""model_conf:
  ctc_weight: 0.5
  criterion: hkd
  criterion_conf:
    teacher: {teacher}
    teacher_dim: {HIDDEN}
    acoustic: {{weight: 1.0, num_negatives: 4}}
    linguistic: {{weight: 0.01}}
"""
    plain = tiny_recipe.CIF_CONFIG
    (folder / "conf/hkd.yaml").write_text(
        plain.replace("model_conf: {ctc_weight: 0.5}\n", conf).replace(
            "use_matplotlib: false\nuse_tensorboard: false\n", ""
        )
    )
    before = Path.cwd()
    os.chdir(folder)
    try:
        code = run(stage="11", skip_packing="false", **OPTIONS)
    finally:
        os.chdir(before)
    assert code == 0
    shutil.rmtree(teacher)
    return folder
