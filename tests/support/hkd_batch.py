"""A student, its texts and a batch of taps for the criterion HKD."""

import torch

from espnet_cif_hkd.cif import CIFOutput
from espnet_cif_hkd.distill import Student, Taps

CHARS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "<sos/eos>"]


CPU = torch.device("cpu")


STUDENT = Student("cif", tuple(CHARS), {"fired": 6, "states:output": 7})


TEXTS = ["THE CAT IS PLAYING", "IT'S ÉX", "", "THE CAT"]


def encode(text):
    names = ["<space>" if c == " " else c for c in text]
    return [CHARS.index(n) if n in CHARS else 1 for n in names]


def batch(texts, embed=6, state=7, seed=0):
    """Taps with NaN as padding of the vectors, which are leaves of the graph."""
    sequences = [encode(t) for t in texts]
    ys_lens = torch.tensor([len(s) for s in sequences])
    lengths = ys_lens + 1
    ys_pad = torch.full((len(texts), int(ys_lens.max())), -1)
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.full((len(texts), int(lengths.max()) + 2, embed), float("nan"))
    states = torch.full((len(texts), int(lengths.max()), state), float("nan"))
    for b, ids in enumerate(sequences):
        ys_pad[b, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        n = len(ids) + 1
        embeddings[b, :n] = torch.randn(n, embed, generator=generator)
        states[b, :n] = torch.randn(n, state, generator=generator)
    none = torch.zeros(len(texts))
    fired = CIFOutput(embeddings.requires_grad_(), lengths, *4 * (none,))
    return Taps(
        hs_pad=torch.zeros(len(texts), 1, embed),
        hlens=torch.ones(len(texts), dtype=torch.long),
        ys_pad=ys_pad,
        ys_pad_lens=ys_lens,
        fired=fired,
        states={"output": states.requires_grad_()},
    )
