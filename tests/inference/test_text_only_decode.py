"""Decoding needs no text of ``text_only``; ESPnet's trainer trains it."""

import pytest
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text
from tiny_model import tiny_config, tiny_model
from tiny_speech import CHANGES, noise
from tone_teacher import speech_batch, texts_of
from unpaired import criteria


def decoded(folder, name, model, changes):
    config, parameters = folder / f"{name}.yaml", folder / f"{name}.pth"
    config.write_text(yaml.safe_dump(tiny_config(token_type="char", **changes)))
    torch.save(model.state_dict(), parameters)
    found = Speech2Text(str(config), str(parameters), beam_size=2, ctc_weight=0.3)
    return [(text, hyp.score) for text, _, _, hyp in found(noise(1.0))]


@pytest.mark.slow
def test_a_checkpoint_decodes_without_the_text(tmp_path):
    """As a model without the criterion, with the same parameters, does."""
    changes = {**CHANGES, "model_conf": criteria(tmp_path)}
    model = tiny_model(**changes).train()
    loss, stats, _ = model(**speech_batch(), **texts_of())
    loss.sum().backward()
    assert "text.loss_text" in stats
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    (tmp_path / "unpaired").unlink()
    plain = tiny_model(**CHANGES)
    plain.load_state_dict(model.state_dict(), strict=False)
    expected = decoded(tmp_path, "plain", plain, CHANGES)
    assert decoded(tmp_path, "text", model, changes) == expected
