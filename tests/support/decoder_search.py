"""Checks of the searches of a CIF decoder with frames around firings."""

import pytest
import torch

from espnet_cif_hkd.plugin.compat import BatchBeamSearch, BeamSearch
from espnet_cif_hkd.search.greedy import greedy_search


def check_steps(decoder, size, vocabulary, n_primer, tolerance):
    """Scores step by step equal those of known prefixes.

    Args:
        decoder: With ``eos_slack`` 100.
        size: Of its encoder frames.
        vocabulary: Number of tokens; the last is ``<sos/eos>``.
        n_primer: Tokens that the first step scores.
        tolerance: Absolute; one hypothesis alone has a tenth of it.
    """
    hs = torch.randn(20, size)
    ys = torch.randint(1, vocabulary - 1, (1, 12))
    ys[0, 0] = vocabulary - 1
    fired = decoder.fire(hs[None], torch.tensor([20]))
    n_tokens = int(fired.lengths)
    near = decoder.near_frames(hs[None], torch.tensor([20]), fired)
    logits, _ = decoder.decode(fired.embeddings, ys[:, :n_tokens], near)
    logp = logits.log_softmax(-1)
    state = decoder.batch_init_state(hs)
    for i in range(n_primer, n_tokens + 1):
        score, states = decoder.batch_score(ys[:, :i], [state], hs[None])
        torch.testing.assert_close(score[0], logp[0, i - 1], atol=tolerance, rtol=0)
        single, _ = decoder.score(ys[0, :i], state, hs)
        torch.testing.assert_close(single, score[0], atol=tolerance / 10, rtol=0)
        state = states[0]
    assert n_tokens > 3


def check_together(decoder, size, vocabulary, tolerance):
    """Two utterances with two hypotheses each are scored as if alone.

    ESPnet 202611 searches so. Arguments as those of :func:`check_steps`.
    """
    hs_pad, hlens = torch.randn(2, 18, size), torch.tensor([18, 11])
    hs_pad[1, 11:] = float("nan")
    together = [decoder.batch_init_state(hs_pad, hlens)] * 4
    alone = [decoder.batch_init_state(hs_pad[b, :n]) for b, n in enumerate(hlens)]
    alone = [alone[0]] * 2 + [alone[1]] * 2
    ys = torch.full((4, 1), vocabulary - 1)
    for step in range(3):
        scores, together = decoder.batch_score(ys, together, hs_pad)
        for n in range(4):
            expected, (alone[n],) = decoder.batch_score(ys[n : n + 1], [alone[n]], None)
            torch.testing.assert_close(scores[n], expected[0], atol=tolerance, rtol=0)
        assert not torch.allclose(scores[0], scores[2], atol=1e-3)
        ys = torch.cat([ys, torch.tensor([[1], [2], [3], [4 + step]])], dim=1)


def check_padding(decoder, size, vocabulary, tolerance):
    """Padding and companions change neither logits nor gradients.

    Arguments as those of :func:`check_steps`.
    """
    hs_pad, hlens = torch.randn(3, 15, size), torch.tensor([15, 9, 4])
    ys_lens, ys_in_pad = torch.tensor([5, 7, 2]), torch.randint(0, vocabulary, (3, 7))
    for b, n in enumerate(hlens):
        hs_pad[b, n:] = float("nan")
    hs_pad.requires_grad_()
    logits, _ = decoder(hs_pad, hlens, ys_in_pad, ys_lens)
    for b in range(3):
        n, length = int(hlens[b]), int(ys_lens[b])
        alone, _ = decoder(
            hs_pad[b : b + 1, :n],
            hlens[b : b + 1],
            ys_in_pad[b : b + 1, :length],
            ys_lens[b : b + 1],
        )
        torch.testing.assert_close(
            logits[b, :length], alone[0], atol=tolerance, rtol=tolerance
        )
    sum(logits[b, :n].sum() for b, n in enumerate(ys_lens)).backward()
    grads = [p.grad for p in decoder.parameters()]
    assert all(grad is None or grad.isfinite().all() for grad in grads)
    for b, n in enumerate(hlens):
        assert hs_pad.grad[b, :n].isfinite().all()
        assert not hs_pad.grad[b, n:].any()


def beam(decoder, hs, klass, beam_size, vocabulary):
    """The best hypothesis of one of ESPnet's searches, ``hs (T, D)``."""
    found = klass(
        scorers={"decoder": decoder},
        weights={"decoder": 1.0},
        beam_size=beam_size,
        vocab_size=vocabulary,
        sos=vocabulary - 1,
        eos=vocabulary - 1,
        token_list=[str(n) for n in range(vocabulary)],
    )
    return found(hs)[0]


def check_greedy(decoder, size, lengths, vocabulary, tolerance):
    """Greedy hypotheses are those of ESPnet's beam 1; a larger beam is not worse.

    Args:
        decoder, size, vocabulary, tolerance: As those of :func:`check_steps`.
        lengths: Frames of each utterance.

    Returns:
        For each utterance its frames ``(T, D)``, the greedy hypothesis, and the best
        one of each of ESPnet's searches with beam 4; and the padded batch of all.
    """
    utterances = [torch.randn(n, size) for n in lengths]
    hs_pad = torch.nn.utils.rnn.pad_sequence(
        utterances, batch_first=True, padding_value=float("nan")
    )
    greedy = greedy_search(decoder, hs_pad, torch.tensor(lengths))
    each = []
    for hs, found in zip(utterances, greedy, strict=True):
        largest = []
        for klass in (BatchBeamSearch, BeamSearch):
            one = beam(decoder, hs, klass, 1, vocabulary)
            assert one.yseq.tolist() == found.yseq.tolist()
            assert float(one.score) == pytest.approx(found.score, abs=tolerance)
            largest.append(beam(decoder, hs, klass, 4, vocabulary))
            assert float(largest[-1].score) >= found.score - tolerance
        each.append((hs, found, largest))
    return each, hs_pad
