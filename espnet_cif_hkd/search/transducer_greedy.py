"""Greedy search of a transducer, for batches of utterances.

Each frame emits at most one token, as in ESPnet's greedy search. The search sorts
utterances by length, and each step processes those that have this frame. The host does
not wait for the device before the last step.
"""

from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.search.greedy import GreedyHypothesis


@torch.no_grad()
def transducer_greedy_search(
    decoder: Any, joint_network: Any, hs_pad: Tensor, hlens: Tensor
) -> list[GreedyHypothesis]:
    """Emit the token with the highest probability at each frame, unless it is blank.

    Tokens and scores are those of ESPnet's ``BeamSearchTransducer`` with beam 1. The
    search has the precision of the parameters, also under autocast.

    Args:
        decoder: ESPnet's ``TransducerDecoder`` in ``eval`` mode.
        joint_network: ESPnet's ``JointNetwork``.
        hs_pad: Encoder frames, ``(B, T, D)``.
        hlens: Number of valid frames, ``(B,)`` integer.

    Returns:
        One hypothesis for each utterance. ``yseq`` begins with the blank and has no
        ``<eos>``; the score is the sum of the log-probabilities of its tokens.
    """
    with torch.autocast(hs_pad.device.type, enabled=False):
        return _search(
            decoder, joint_network, hs_pad.to(joint_network.lin_enc.weight.dtype), hlens
        )


def _search(
    decoder: Any, joint_network: Any, hs_pad: Tensor, hlens: Tensor
) -> list[GreedyHypothesis]:
    decoder.set_device(hs_pad.device)
    blank = decoder.blank_id
    n_frames, order = hlens.cpu().sort(descending=True, stable=True)
    n_total = int(n_frames[0]) if len(n_frames) else 0
    projected = joint_network.lin_enc(hs_pad[order.to(hs_pad.device), :n_total])
    running = (n_frames[:, None] > torch.arange(n_total)).sum(dim=0).tolist()

    tokens = torch.full(
        (n_total, len(order)), blank, dtype=torch.int64, device=hs_pad.device
    )
    logp = torch.zeros(tokens.shape, dtype=torch.float32, device=hs_pad.device)
    states = decoder.init_state(len(order))
    start = tokens.new_full((len(order),), blank)
    predicted, states = predicted_step(decoder, joint_network, start, states)
    for step, n in enumerate(running):
        if n < len(predicted):
            predicted = predicted[:n]
            states = tuple(
                None if one is None else one[:, :n].contiguous() for one in states
            )
        logits = joint_network(projected[:n, step], predicted, no_projection=True)
        best, token = logits.float().log_softmax(dim=-1).max(dim=-1)
        tokens[step, :n], logp[step, :n] = token, best
        emitted = (token != blank)[:, None]
        output, following = predicted_step(decoder, joint_network, token, states)
        predicted = torch.where(emitted, output, predicted)
        states = tuple(
            None if new is None else torch.where(emitted, new, old)
            for new, old in zip(following, states, strict=True)
        )

    scores = logp.masked_fill(tokens == blank, 0.0).double().sum(dim=0).tolist()
    found = []
    for row, score, each in zip(tokens.T.cpu(), scores, logp.T.cpu(), strict=True):
        ids = row[row != blank]
        yseq = torch.cat([ids.new_full((1,), blank), ids])
        found.append(GreedyHypothesis(yseq, score, each[row != blank]))
    return [found[place] for place in order.argsort().tolist()]


def predicted_step(
    decoder: Any, joint_network: Any, token: Tensor, states: tuple[Any, ...]
) -> tuple[Tensor, tuple[Any, ...]]:
    """One step of the prediction network.

    Args:
        decoder: ESPnet's ``TransducerDecoder``.
        joint_network: ESPnet's ``JointNetwork``.
        token: ``(n,)`` int64.
        states: Hidden and cell states, ``(N, n, H)``; a GRU has None as the second.

    Returns:
        The output, projected for the joint network, ``(n, J)``, and the next states.
    """
    output, states = decoder.rnn_forward(decoder.embed(token[:, None]), states)
    return joint_network.lin_dec(output[:, 0]), states
