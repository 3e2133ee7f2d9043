"""How often one training step waits for the device in our own modules.

Whatever needs a value on the host (``item``, ``tolist``, ``cpu``, a size that depends
on values) stops the host until a GPU has done all before it. ESPnet's own are not
counted: feature masks, SpecAugment, its CTC, its assertion on lengths.
"""

import pytest
import torch
from host_reads import Copies, Reads
from soft_levels import chars, criteria
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import CIF_CONFORMER, tiny_batch, tiny_model


def reads(model, batch):
    """Waits of one step, by module."""
    reading = Reads()
    with Copies(reading.found), reading:
        model(**batch)[0].sum().backward()
    return reading.found


def ours(found):
    return {k: n for k, n in found.items() if k not in ("espnet", "elsewhere")}


def test_the_counters_see_what_they_should():
    mask = torch.tensor([True, False])
    values = torch.tensor([1.0, 2.0])
    ways = [
        lambda: values[0].item(),
        lambda: values.tolist(),
        lambda: values.cpu(),
        lambda: values.to("cpu"),
        lambda: values[mask],
        lambda: values.masked_select(mask),
        lambda: values[: torch.tensor(1)],
        lambda: bool(mask[0]),
        lambda: torch.repeat_interleave(torch.tensor([1, 2])),
    ]
    for number, way in enumerate(ways):
        reading = Reads()
        with Copies(reading.found), reading:
            way()
        assert sum(reading.found.values()) == 1, number


@pytest.mark.parametrize("n_batch", [2, 5])
def test_a_step_of_the_model_waits_twice(n_batch):
    """However many utterances.

    - The encoder looks at the shortest and the longest input: too short a one is an
      error that names it, and frames after the longest are cut off.
    - CTC reads all lengths on the host; the model fetches them in one copy, where
      ESPnet's loop would fetch each.
    """
    found = ours(reads(tiny_model(**CIF_CONFORMER).train(), tiny_batch(n_batch)))
    assert found == {"encoder.cif_conformer": 1, "models.cif": 1}


def test_hkd_waits_once_more(tmp_path):
    """The teacher is asked by token ids: transcripts and lengths, in one copy."""
    conf = {"teacher": build_tiny_bert(tmp_path), "teacher_dim": HIDDEN}
    hkd = {"criterion": "hkd", "criterion_conf": conf}
    model = tiny_model(**CIF_CONFORMER, model_conf=hkd).train()
    batch = tiny_batch(4)
    model(**batch)  # opens the teacher
    assert ours(reads(model, batch)) == {
        "encoder.cif_conformer": 1,
        "models.cif": 1,
        "distill.hkd": 1,
    }


@pytest.mark.parametrize("n_batch", [2, 5])
def test_soft_labels_wait_once_more(tmp_path, n_batch):
    """All levels share one copy of transcripts and lengths."""
    levels = {
        "low": chars(tmp_path, "layer:1", map="ctc"),
        "own": chars(tmp_path, "layer:2", map="cif"),
        "output": {"tap": "logits", "interpolation": 0.3, "lm_type": "table"},
    }
    conf = criteria(levels, token_type="char")
    model = tiny_model(**CIF_CONFORMER, model_conf=conf).train()
    batch = tiny_batch(n_batch)
    model(**batch)
    assert ours(reads(model, batch)) == {
        "encoder.cif_conformer": 1,
        "models.cif": 1,
        "distill.soft_labels": 1,
    }
