"""Differences from the original in docs/differences.md that no other file tests."""

import ast
import re
from pathlib import Path

import pytest
import torch
from tiny_model import TOKENS, tiny_batch, tiny_model

ROOT = Path(__file__).resolve().parents[2]
TESTS = {path.name: path for path in ROOT.glob("tests/*/test_*.py")}
REFERENCE = re.compile(r"\b(test_\w+\.py)::(\w+)")


def functions_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda p: p.stem)
def test_every_test_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"\btest_\w+\.py\b", text)):
        assert name in TESTS, name
    for name, function in REFERENCE.findall(text):
        assert function in functions_of(TESTS[name]), (name, function)


def test_ctc_labels_have_no_eos():
    model, batch = tiny_model().train(), tiny_batch()
    seen = []
    model.ctc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    _, stats, weight = model(**batch)
    (hs_pad, hlens, labels, lengths), eos = seen[0], len(TOKENS) - 1
    assert torch.equal(lengths, batch["text_lengths"])
    assert not (labels == eos).any()
    # The losses are divided by the number of tokens with <eos> all the same.
    assert int(weight) == int((lengths + 1).sum())
    total = torch.nn.functional.ctc_loss(
        model.ctc.ctc_lo(hs_pad).log_softmax(-1).transpose(0, 1),
        labels,
        hlens,
        lengths,
        reduction="sum",
    )
    torch.testing.assert_close(stats["loss_ctc"], total.detach() / weight)


@pytest.mark.parametrize("dropout_rate", [0.0, 0.2])
def test_scaling_does_not_depend_on_dropout(dropout_rate):
    conf = {"attention_heads": 2, "linear_units": 8, "num_blocks": 1}
    conf["predictor_conf"] = {"dropout_rate": dropout_rate}
    decoder = tiny_model(decoder_conf=conf).decoder.train()
    lengths = torch.tensor([9, 2])
    hs_pad, hlens = torch.randn(2, 30, 8), torch.tensor([30, 21])
    tokens = torch.ones(2, 9, dtype=torch.long)
    fired = decoder.forward_with_states(hs_pad, hlens, tokens, lengths).cif
    assert torch.equal(fired.lengths, lengths)
    torch.testing.assert_close(fired.alpha.sum(dim=1), lengths.double())
    assert (fired.quantity - lengths).abs().min() > 0.5  # it was not so by itself


def test_positions_are_espnets_from_zero():
    decoder = tiny_model().decoder.eval()
    size, n_tokens = decoder.embed.embedding_dim, 5
    torch.nn.init.zeros_(decoder.project_in.weight)  # positions are left
    seen = []
    decoder.layers[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    tokens = torch.ones(1, n_tokens, dtype=torch.long)
    decoder.decode(torch.randn(1, n_tokens, size), tokens)
    steps = torch.arange(n_tokens)[:, None]
    ours = steps * 10000 ** (-torch.arange(size // 2) / (size / 2))
    expected = torch.stack([ours.sin(), ours.cos()], dim=-1).flatten(1)
    torch.testing.assert_close(seen[0][0], expected)
    theirs = (steps + 2) * 10000 ** (-torch.arange(size // 2) / (size / 2 - 1))
    original = torch.cat([theirs.sin(), theirs.cos()], dim=-1)
    assert (seen[0][0] - original).abs().max() > 0.1


def test_layer_norms_have_espnets_epsilon():
    conf = {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1}
    encoder = {
        "encoder": "cif_conformer",
        "encoder_conf": conf | {"pooling_layers": []},
    }
    model = tiny_model(input_size=12, **encoder)
    for part, count in ((model.encoder, 5), (model.decoder, 3)):
        norms = [m for m in part.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert [norm.eps for norm in norms] == [1e-12] * count


class Recorder(torch.nn.Module):
    """A layer that does nothing but say that it was called."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, feats, lengths):
        self.calls.append(self.name)
        return feats, lengths


def test_masks_come_before_normalisation():
    model, calls = tiny_model().train(), []
    model.specaug = Recorder("specaug", calls)
    model.normalize = Recorder("normalize", calls)
    model(**tiny_batch())
    assert calls == ["specaug", "normalize"]


def test_log_mel_is_near_kaldis_and_not_the_same():
    kaldi = pytest.importorskip("torchaudio").compliance.kaldi
    from espnet2.asr.frontend.default import DefaultFrontend

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 16000, generator=generator)
    # Coloured noise whose level changes, so that bands and frames differ.
    speech = noise.cumsum(1) * 0.01 + noise
    speech = speech * (1 + torch.linspace(0, 40, 16000).sin())
    theirs = kaldi.fbank(speech * 2**15, num_mel_bins=80, dither=0.0)
    frontend = DefaultFrontend(
        fs=16000, n_fft=512, win_length=400, hop_length=160, n_mels=80
    )
    ours, _ = frontend(speech, torch.tensor([16000]))
    # A centred spectrum begins half a window before Kaldi's first.
    ours = ours[0, 1 : 1 + len(theirs)]

    def normalised(feats):
        return (feats - feats.mean(0)) / feats.std(0)

    ours, theirs = normalised(ours), normalised(theirs)
    likeness = (ours * theirs).mean()
    assert likeness > 0.85
    assert (ours - theirs).abs().mean() > 0.1
