"""A CIF decoder with predictable output: frames hold alpha and token."""

import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.plugin.compat import (
    BatchBeamSearch,
    BeamSearch,
    CTCPrefixScorer,
    LengthBonus,
)

TOKENS = ["<blank>", "<unk>", "a", "b", "c", "d", "<sos/eos>"]
EOS = len(TOKENS) - 1


class FirstChannel(torch.nn.Module):
    """Take alpha from channel 0 of the frames."""

    def forward(self, hs_pad, hlens):
        return hs_pad[..., 0]


def readable_decoder(**kwargs):
    """Channels 1.. of a frame hold one number per token; the fired sum is the logit."""
    vocab = len(TOKENS)
    decoder = CIFDecoder(
        vocab, vocab + 1, attention_heads=1, linear_units=4, num_blocks=1, **kwargs
    ).eval()
    decoder.predictor = FirstChannel()
    with torch.no_grad():
        identity = torch.eye(vocab + 1)
        decoder.project_out.weight.copy_(torch.cat([0 * identity, identity], dim=1))
        decoder.output_layer.weight.copy_(identity[1:])
    return decoder


def frames(*spelled, strength=8.0):
    """Build frames ``(T, D)`` from pairs of token and alpha."""
    rows = []
    for token, alpha in spelled:
        row = [0.0] * (len(TOKENS) + 1)
        row[0] = alpha
        row[1 + TOKENS.index(token)] = strength
        rows.append(row)
    return torch.tensor(rows)


class FrameCTC(torch.nn.Module):
    """CTC whose frames speak for themselves; ``<eos>`` frames are blank."""

    def log_softmax(self, hs_pad):
        logits = hs_pad[..., 1:].clone()
        logits[..., 0] = logits[..., EOS]
        logits[..., EOS] = -1e4
        return logits.log_softmax(-1)


def search(
    decoder, hs, beam_size=3, ctc_weight=0.0, lm=None, lm_weight=0.0, batched=True, **kw
):
    """Run ESPnet's beam search over frames and return the n-best list."""
    scorers = {"decoder": decoder, "length_bonus": LengthBonus(len(TOKENS))}
    weights = {"decoder": 1.0 - ctc_weight, "length_bonus": 0.0, "ctc": ctc_weight}
    if ctc_weight > 0:
        scorers["ctc"] = CTCPrefixScorer(FrameCTC(), EOS)
    if lm is not None:
        scorers["lm"] = lm
        weights["lm"] = lm_weight
    klass = BatchBeamSearch if batched else BeamSearch
    beam = klass(
        scorers=scorers,
        weights=weights,
        beam_size=beam_size,
        vocab_size=len(TOKENS),
        sos=EOS,
        eos=EOS,
        token_list=TOKENS,
        pre_beam_score_key="full" if ctc_weight > 0 else None,
    )
    with torch.no_grad():
        return beam(hs, **kw)


def spell(hypothesis):
    """Tokens of a hypothesis without ``<sos>`` and ``<eos>``, as one string."""
    ids = [int(token) for token in hypothesis.yseq]
    assert ids[0] == EOS and ids[-1] == EOS
    return "".join(TOKENS[token] for token in ids[1:-1])


ENDINGS = {
    "<eos> fires completely": [("a", 1.0), ("b", 1.0), ("c", 1.0), ("<sos/eos>", 1.0)],
    "<eos> in the tail": [("a", 1.0), ("b", 1.0), ("c", 1.0), ("<sos/eos>", 0.7)],
    "<eos> swallowed": [("a", 1.0), ("b", 1.0), ("c", 1.0), ("<sos/eos>", 0.3)],
    "no trace of <eos>": [("a", 1.0), ("b", 1.0), ("c", 1.0)],
    "last token in the tail": [("a", 1.0), ("b", 1.0), ("c", 0.8)],
    "last token shares the tail with <eos>": [
        ("a", 1.0),
        ("b", 1.0),
        ("c", 0.6),
        ("<sos/eos>", 0.2),
    ],
    "one vector too many": [
        ("a", 1.0),
        ("b", 1.0),
        ("c", 1.0),
        ("<sos/eos>", 1.0),
        ("<sos/eos>", 1.0),
    ],
    "spread over frames": [
        ("a", 0.5),
        ("a", 0.5),
        ("b", 0.25),
        ("b", 0.75),
        ("c", 0.9),
        ("c", 0.2),
        ("<sos/eos>", 0.9),
    ],
}
