"""The loss of arXiv 2301.13003, utterance by utterance and token by token."""

import torch
import torch.nn.functional as F
from tiny_model import TOKENS, slice_batch

from espnet_cif_hkd.plugin.compat import add_sos_eos

EOS = len(TOKENS) - 1


def paper_loss_sum(model, batch, lsm_weight=0.1):
    """The paper's sum over tokens, utterance by utterance (arXiv 2301.13003)."""
    total, n_tokens = 0.0, 0
    for b in range(len(batch["text"])):
        one = slice_batch(batch, [b])
        hs, hlens = model.encode(one["speech"], one["speech_lengths"])
        target = torch.cat([one["text"][0], torch.tensor([EOS])])
        tokens_in = torch.cat([torch.tensor([EOS]), one["text"][0]])[None]
        length = torch.tensor([len(target)])
        logits, _ = model.decoder(hs, hlens, tokens_in, length)
        logp = logits[0].log_softmax(-1)
        eps = lsm_weight / (logp.size(1) - 1)
        nll = -logp[torch.arange(len(target)), target]
        cross_entropy = ((1 - lsm_weight - eps) * nll - eps * logp.sum(-1)).sum()
        alpha = model.decoder.predictor(hs, hlens)
        quantity = (alpha.sum() - len(target)).abs()
        ctc = torch.nn.functional.ctc_loss(
            model.ctc.ctc_lo(hs).log_softmax(-1).transpose(0, 1),
            one["text"],
            hlens,
            one["text_lengths"],
            reduction="sum",
        )
        total = total + cross_entropy + 1.0 * quantity + 0.5 * ctc
        n_tokens += len(target)
    return total, n_tokens


def distillation_sum(model, batch):
    """Both levels token by token (arXiv 2301.13003), all others as negatives."""
    hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    ys_in, _ = add_sos_eos(batch["text"], model.sos, model.eos, -1)
    lengths = batch["text_lengths"] + 1
    output = model.decoder.forward_with_states(hs_pad, hlens, ys_in, lengths)
    sequences = [
        ids[:n] for ids, n in zip(batch["text"].tolist(), batch["text_lengths"])
    ]
    teacher = model.criterion._teacher.features(sequences, hs_pad.device)
    fired = torch.cat([e[:n] for e, n in zip(output.cif.embeddings, lengths)])
    states = torch.cat([s[:n] for s, n in zip(output.states, lengths)])
    student = model.criterion.acoustic_projection(fired)
    acd = 0.0
    for n in range(len(teacher)):
        cosines = F.cosine_similarity(student[n : n + 1], teacher) / 0.02
        acd = acd + cosines.logsumexp(0) - cosines[n]
    regressed = model.criterion.linguistic_projection(states)
    return 1.0 * acd + 0.01 * (regressed - teacher).square().sum()
