"""CIFASRModel with a teacher: weights of both levels, and when the PLM is opened."""

import pytest
import torch
from hkd_models import SYSTEMS, model_of
from paper_loss import distillation_sum, paper_loss_sum
from tiny_bert import build_tiny_bert
from tiny_model import gradients, tiny_batch

import espnet_cif_hkd.teachers.text.plm


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def no_teacher(monkeypatch):
    """Opening a PLM is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("a teacher was opened")

    monkeypatch.setattr(espnet_cif_hkd.teachers.text.plm, "open_teacher", refuse)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_four_systems_differ_in_their_losses(system, bert):
    model = model_of(system, bert).train()
    _, stats, _ = model(**tiny_batch())
    assert ("loss_acd" in stats and "acc_acd" in stats) == (system in ("acd", "hkd"))
    assert ("loss_lrd" in stats) == (system in ("lrd", "hkd"))
    projections = {k.split(".")[1] for k in model.state_dict() if "criterion." in k}
    assert len(projections) == {"cif": 0, "acd": 1, "lrd": 1, "hkd": 2}[system]
    model(**tiny_batch())[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_too_few_negatives_are_counted_and_reported_once(bert, caplog):
    model, batch = model_of("hkd", bert).train(), tiny_batch()
    n_tokens = int((batch["text_lengths"] + 1).sum())
    with caplog.at_level("WARNING"):
        _, stats, _ = model(**batch)
        model(**batch)
    assert float(stats["negatives_acd"]) == n_tokens * 4 // 5
    assert caplog.text.count("fewer than the 700 negatives") == 1


@pytest.mark.parametrize("n_batch", [2, 5])
def test_gradient_has_the_papers_weights(bert, n_batch):
    every = {"temperature": 0.02, "num_negatives": "all"}
    model = model_of("hkd", bert, acoustic=every).train()
    batch = tiny_batch(n_batch)
    loss, _, weight = model(**batch)
    loss.backward()
    ours = gradients(model)
    model.zero_grad()
    total, n_tokens = paper_loss_sum(model, batch)
    assert int(weight) == n_tokens
    ((total + distillation_sum(model, batch)) / n_tokens).backward()
    oracle = gradients(model)
    assert ours.keys() == oracle.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], oracle[key], rtol=2e-3, atol=2e-4)


def test_the_teacher_is_no_part_of_the_model(bert):
    model = model_of("hkd", bert).train()
    names = set(model.state_dict())
    model(**tiny_batch())
    assert set(model.state_dict()) == names
    assert not any("bert" in n or "teacher" in n for n in names)


def test_statistics_and_inference_never_open_the_teacher(bert, no_teacher):
    model, batch = model_of("hkd", bert), tiny_batch()
    model.collect_feats(**batch)
    model.eval()
    hs_pad, _ = model.encode(batch["speech"], batch["speech_lengths"])
    state = model.decoder.batch_init_state(hs_pad[0])
    model.decoder.score(torch.tensor([model.sos]), state, hs_pad[0])
    with pytest.raises(AssertionError, match="a teacher was opened"):
        model.train()(**batch)


def test_a_teacher_that_is_gone_does_not_hinder_inference(tmp_path):
    trained = model_of("hkd", build_tiny_bert(tmp_path / "bert"))
    again = model_of("hkd", str(tmp_path / "gone" / "bert"))
    again.load_state_dict(trained.state_dict())
    again.eval().encode(tiny_batch()["speech"], tiny_batch()["speech_lengths"])


def test_only_the_criterions_keys_may_be_missing(bert):
    plain, distilled = model_of("cif", bert), model_of("hkd", bert)
    plain.load_state_dict(distilled.state_dict(), strict=False)
    distilled.load_state_dict(plain.state_dict(), strict=False)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, distilled.state_dict()[key])
