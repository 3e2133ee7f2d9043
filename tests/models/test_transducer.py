"""Model transducer: loss, normalisation, validation, criteria, refused options."""

import argparse

import editdistance
import pytest
import recorder
import torch
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.asr.transducer.beam_search_transducer import BeamSearchTransducer
from espnet2.tasks.asr import postencoder_choices
from host_reads import Copies, Reads
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_model import CIF_CONFORMER, TOKENS, gradients, slice_batch, tiny_batch
from transducer_parts import tiny_transducer, transducer_config

from espnet_cif_hkd.distill.taps import MODEL_TAPS
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.rnnt_naive import rnnt_loss_naive
from espnet_cif_hkd.plugin.preflight import check_arguments

assert recorder  # registers the criterion "recorder"


class Narrow(AbsPostEncoder):
    """A postencoder that changes the size of frames."""

    def __init__(self, input_size):
        super().__init__()

    def output_size(self):
        return 4

    def forward(self, hs, lengths):
        return hs[..., :4], lengths


def step(model, batch):
    model.zero_grad()
    loss, stats, weight = model.train()(**batch)
    loss.sum().backward()
    return loss, stats, weight, gradients(model)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_the_loss_is_that_of_the_loop_per_token(ctc_weight):
    model = tiny_transducer(std=0.5, model_conf={"ctc_weight": ctc_weight})
    batch = tiny_batch(4)
    loss, stats, weight, found = step(model, batch)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert int(weight) == int((batch["text_lengths"] + 1).sum())
    hs, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    total = 0.0
    for b, (n, u) in enumerate(zip(hlens, batch["text_lengths"], strict=True)):
        text = batch["text"][b : b + 1, :u]
        states = model.decoder(torch.cat([torch.zeros_like(text[:, :1]), text], dim=1))
        logits = model.joint_network(hs[b : b + 1, :n, None], states[:, None])
        total += rnnt_loss_naive(logits.double(), text, n[None], u[None]).sum()
    total = total.float() / weight  # (1,), as ESPnet gathers losses
    torch.testing.assert_close(stats["loss_transducer"], total.detach())
    if ctc_weight:
        ctc = model.ctc(hs, hlens, batch["text"], batch["text_lengths"]) * 4 / weight
        torch.testing.assert_close(loss, total + ctc_weight * ctc)
    else:
        torch.testing.assert_close(loss, total)
        assert "loss_ctc" not in stats


def test_any_split_equals_one_batch():
    """ESPnet's trainer: (sum of loss x weight) / (sum of weight) over processes."""
    model, batch = tiny_transducer(), tiny_batch(5)
    loss, stats, weight, complete = step(model, batch)
    parts = [model(**slice_batch(batch, c)) for c in ([0], [1, 2, 3], [4])]
    total = sum(part[0] * part[2] for part in parts) / weight
    model.zero_grad()
    total.sum().backward()
    torch.testing.assert_close(total, loss)
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, complete[name], rtol=1e-4, atol=1e-5)
    for name in ("loss_transducer", "loss_ctc"):
        mean = sum(part[1][name] * part[2] for part in parts) / weight
        torch.testing.assert_close(mean, stats[name])


def test_more_padding_changes_nothing():
    model, batch = tiny_transducer(), tiny_batch(3)
    loss, _, _, expected = step(model, batch)
    batch["text"] = torch.nn.functional.pad(batch["text"], (0, 3), value=-1)
    again, _, _, found = step(model, batch)
    torch.testing.assert_close(again, loss)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_validation_decodes_greedily():
    model = tiny_transducer(std=1.0).eval()
    batch = tiny_batch(4)
    with torch.no_grad():
        _, stats, _ = model(**batch)
        hs, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    search = BeamSearchTransducer(model.decoder, model.joint_network, beam_size=1)
    hyps = [search(one[:n])[0].yseq[1:] for one, n in zip(hs, hlens, strict=True)]
    refs = [
        row[:n].tolist()
        for row, n in zip(batch["text"], batch["text_lengths"].tolist())
    ]

    def rate(convert):
        pairs = [(convert(h), convert(r)) for h, r in zip(hyps, refs, strict=True)]
        return sum(editdistance.eval(*p) for p in pairs) / sum(len(p[1]) for p in pairs)

    def text(ids):
        return "".join(TOKENS[n] for n in ids).replace("<space>", " ")

    assert any(hyps)
    assert float(stats["acc"]) == pytest.approx(1 - rate(list))
    assert float(stats["cer"]) == pytest.approx(
        rate(lambda ids: text(ids).replace(" ", ""))
    )
    assert float(stats["wer"]) == pytest.approx(rate(lambda ids: text(ids).split()))


def test_validation_of_empty_texts():
    """Error rates of nothing are left out; the loss is that of blanks alone."""
    model, batch = tiny_transducer().eval(), tiny_batch(2)
    batch |= {"text": batch["text"][:, :0], "text_lengths": torch.zeros(2).long()}
    with torch.no_grad():
        loss, stats, weight = model(**batch)
    assert torch.isfinite(loss) and int(weight) == 2
    assert stats["acc"] is stats["cer"] is stats["wer"] is None


def test_no_reports_wanted():
    quiet = {"report_cer": False, "report_wer": False}
    model = tiny_transducer(model_conf=quiet).eval()
    with torch.no_grad():
        _, stats, _ = model(**tiny_batch(2))
    assert "acc" in stats and not {"cer", "wer"} & set(stats)


def test_states_are_taught(tmp_path):
    """State l has read the tokens before token l, as a decoder's state has."""
    bert = build_tiny_bert(tmp_path)
    conf = {"teacher": bert, "teacher_dim": HIDDEN, "acoustic": None}
    hkd = {"criterion": "hkd", "criterion_conf": conf}
    model, batch = tiny_transducer(model_conf=hkd), tiny_batch(3)
    taken = []
    model.criterion.register_forward_hook(lambda *hooked: taken.append(hooked[1][0]))
    loss, stats, *_ = step(model, batch)
    (taps,) = taken
    assert taps.states["output"].shape == (3, batch["text"].size(1) + 1, 8)
    plain, *_ = step(tiny_transducer(), batch)
    torch.testing.assert_close(loss, plain + 0.01 * stats["loss_lrd"])
    conf["acoustic"] = {}
    with pytest.raises(UserError, match="fired vectors; model: transducer has none"):
        tiny_transducer(model_conf=hkd)


@pytest.mark.parametrize("tap", ["logits", "joint"])
def test_the_lattice_is_a_tap(tap):
    """Only if wanted; the joint network gives the same logits for single nodes."""
    conf = {
        "criterion": "recorder",
        "criterion_conf": {"wants": [tap, "states:output"]},
    }
    model, batch = tiny_transducer(model_conf=conf), tiny_batch(3)
    sizes = model.criterion.student.sizes
    known = {name for name in sizes if not name.startswith("layer:")}
    assert known | {"speech"} == MODEL_TAPS["transducer"]
    step(model, batch)
    taps = model.criterion.got
    states = taps.states["output"]
    n_nodes = batch["text"].size(1) + 1
    expected = model.joint_network(taps.hs_pad[:, :, None], states[:, None])
    assert (taps.logits is None, taps.joint is None) == (
        tap != "logits",
        tap != "joint",
    )
    if tap == "logits":
        assert taps.logits.shape == (3, taps.hs_pad.size(1), n_nodes, len(TOKENS))
        torch.testing.assert_close(taps.logits, expected)
    else:
        found = taps.joint(taps.hs_pad[:, 2], states[:, 1])
        torch.testing.assert_close(found, expected[:, 2, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    model, batch = tiny_transducer(), tiny_batch(3)
    expected, *_ = step(model, batch)
    model.zero_grad()
    with torch.autocast("cpu", dtype):
        loss, stats, _ = model(**batch)
        valid = model.eval()(**batch)[1]
    loss.sum().backward()
    assert loss.dtype == stats["loss_transducer"].dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=2e-2)
    assert torch.isfinite(valid["acc"])
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_step_waits_twice():
    """As model cif: for the lengths of the inputs, and of CTC; CPU checks aside."""
    model, batch = tiny_transducer(**CIF_CONFORMER).train(), tiny_batch(3)
    reading = Reads()
    with Copies(reading.found), reading:
        model(**batch)[0].sum().backward()
    found = dict(reading.found)
    for other in ("espnet", "elsewhere", "losses.rnnt"):
        found.pop(other, None)
    assert found == {"encoder.cif_conformer": 1, "models.transducer": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "cif", "decoder_conf": {}}, "needs decoder: transducer .* CIFDec"),
        ({"decoder": "transformer", "decoder_conf": {}}, "got TransformerDecoder; set"),
        ({"model_conf": {"ctc_weight": 1.0}}, "ctc_weight 1.0 must be at least 0"),
        ({"model_conf": {"sym_blank": "A"}}, "token 0 must be the blank, but is '<bl"),
        (
            {"postencoder": "narrow", "postencoder_conf": {}},
            "frames have size 4 after the postencoder, and ESPnet builds",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, monkeypatch):
    monkeypatch.setitem(postencoder_choices.classes, "narrow", Narrow)
    with pytest.raises(UserError, match=message) as caught:
        tiny_transducer(**changes)
    assert "\n" not in str(caught.value)


def test_no_joint_network_is_refused_before_the_training():
    args = argparse.Namespace(config=None, **transducer_config(joint_net_conf=None))
    with pytest.raises(UserError, match="needs a joint network: set 'joint_net_conf:"):
        check_arguments(args)


def test_parameters_have_espnets_names_and_are_checked():
    model = tiny_transducer()
    state = model.state_dict()
    assert {name.split(".")[0] for name in state} == {
        *("encoder", "decoder", "joint_network", "ctc"),
        *("token_list_digest", "package_version"),
    }
    model.load_state_dict(state)
    missing = {k: v for k, v in state.items() if k != "joint_network.lin_out.bias"}
    with pytest.raises(UserError, match="lacks 1 of the keys"):
        model.load_state_dict(missing, strict=False)
    other = tiny_transducer(token_list=[*TOKENS[:-2], "Z", TOKENS[-1]])
    with pytest.raises(UserError, match="another token list"):
        other.load_state_dict(state)
