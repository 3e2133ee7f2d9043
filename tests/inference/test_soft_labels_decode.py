"""Decoding opens neither units nor language models of ``soft_labels``."""

import numpy as np
import pytest
import torch
import yaml
from ddp_steps import train
from espnet2.bin.asr_inference import Speech2Text
from soft_levels import chars, criteria, write_ctm
from tiny_model import tiny_batch, tiny_config, tiny_model
from tiny_speech import CHANGES, noise
from tone_teacher import speech_batch, texts_of


def files(folder, name, model, changes):
    config, parameters = folder / f"{name}.yaml", folder / f"{name}.pth"
    config.write_text(yaml.safe_dump(tiny_config(token_type="char", **changes)))
    torch.save(model.state_dict(), parameters)
    return str(config), str(parameters)


def decoded(paths):
    found = Speech2Text(*paths, beam_size=2, ctc_weight=0.3)
    assert not [name for name in found.asr_model.state_dict() if "criteria" in name]
    return [(text, hyp.score) for text, _, _, hyp in found(noise(1.0))]


@pytest.mark.slow
def test_a_checkpoint_decodes_without_the_files_of_its_levels(tmp_path):
    """As a model without levels with the same parameters does."""
    ctm = tmp_path / "units.ctm"
    aligned = {
        f"utterance{n}": ([3, 4], np.array([[0, 0.2], [0.3, 0.6]])) for n in (0, 1)
    }
    levels = {
        "low": chars(tmp_path, "layer:1", map="ctc"),
        "own": chars(tmp_path, "layer:1", map="cif"),
        "aligned": chars(
            tmp_path,
            map="alignment",
            alignment=write_ctm(ctm, aligned),
            max_missing=50,
        ),
        "output": {"tap": "logits", "interpolation": 0.3, "lm": "exp/lm_char"},
    }
    levels["output"]["lm_type"] = "table"
    changes = {**CHANGES, "model_conf": criteria(levels, token_type="char")}
    model = tiny_model(**changes)
    batch = {**speech_batch(), **texts_of()}
    loss, stats, _ = model.train()(**batch)
    loss.sum().backward()
    assert {"lm.loss_aligned_soft", "lm.loss_output"} <= set(stats)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for path in (ctm, tmp_path / "unit_tokens.txt"):
        path.unlink()
    paths = files(tmp_path, "levels", model, changes)
    plain = tiny_model(**CHANGES)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert decoded(paths) == decoded(files(tmp_path, "plain", plain, CHANGES))


@pytest.mark.slow
def test_espnets_trainer_trains_the_levels(tmp_path):
    levels = {"low": chars(tmp_path, map="ctc"), "own": chars(tmp_path, map="cif")}
    model = tiny_model(model_conf=criteria(levels)).double()
    batch = tiny_batch(6, dtype=torch.float64)
    moved, log = train(model, [batch, batch], 1, distributed=False)
    heads = {name: step for name, step in moved.items() if "criteria.lm.heads" in name}
    assert len(heads) == 8 and all(step.any() for step in heads.values())
    assert {"lm.loss_low_hard", "lm.loss_own_soft", "lm.acc_own"} <= set(log)
