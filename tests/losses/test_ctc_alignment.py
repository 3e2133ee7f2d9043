"""CTC's forced alignment of a batch against a plain Viterbi search."""

import math

import pytest
import torch
from ctc_paths import FRAMES, SENTENCES, VOCAB, collapsed

from espnet_cif_hkd.encoder.frames import frames_needed
from espnet_cif_hkd.losses.ctc_alignment import (
    ctc_alignment,
    middle_frames,
)
from espnet_cif_hkd.losses.ctc_alignment_naive import ctc_alignment_naive


def batch(seed, frames=FRAMES, sentences=SENTENCES, vocab=VOCAB):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(frames), max(frames), vocab)
    logp = torch.randn(shape, generator=generator).mul(2).log_softmax(-1)
    width = max(map(len, sentences))
    ys_pad = torch.full((len(sentences), width), -1)
    for row, tokens in zip(ys_pad, sentences, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    lengths = torch.tensor([len(tokens) for tokens in sentences])
    for row, n in zip(logp, frames, strict=True):
        row[n:] = math.nan
    return logp, torch.tensor(frames), ys_pad, lengths


@pytest.mark.parametrize("seed", range(8))
def test_the_best_path(seed):
    logp, hlens, ys_pad, lengths = batch(seed)
    found = ctc_alignment(logp, hlens, ys_pad, lengths)
    for b, (n, tokens) in enumerate(zip(FRAMES, SENTENCES, strict=True)):
        path = ctc_alignment_naive(logp[b, :n], tokens)
        assert (path is None) == (frames_needed(tokens) > n)
        expected = [-1] * n if path is None else path
        assert found[b].tolist() == expected + [-1] * (max(FRAMES) - n)
        if path is not None:
            spelt = [0 if u < 0 else tokens[u] for u in path]
            assert collapsed(spelt) == tokens


def test_longer_utterances():
    generator = torch.Generator().manual_seed(3)
    frames = [60, 41, 55]
    sentences = [
        torch.randint(1, 12, (n,), generator=generator).tolist() for n in (20, 14, 1)
    ]
    logp, hlens, ys_pad, lengths = batch(1, frames, sentences, 12)
    found = ctc_alignment(logp, hlens, ys_pad, lengths)
    for row, scores, n, tokens in zip(found, logp, frames, sentences, strict=True):
        assert row[:n].tolist() == ctc_alignment_naive(scores[:n], tokens)


def test_companions_and_padding_change_nothing():
    logp, hlens, ys_pad, lengths = batch(2)
    together = ctc_alignment(logp, hlens, ys_pad, lengths)
    for b, (n, size) in enumerate(zip(FRAMES, lengths.tolist(), strict=True)):
        alone = ctc_alignment(
            logp[b : b + 1, :n],
            hlens[b : b + 1],
            ys_pad[b : b + 1, :size],
            lengths[b : b + 1],
        )
        assert together[b, :n].tolist() == alone[0].tolist()


def test_torchaudio_finds_the_same_path():
    functional = pytest.importorskip("torchaudio.functional")
    logp, hlens, ys_pad, lengths = batch(4)
    found = ctc_alignment(logp, hlens, ys_pad, lengths)
    for b, (n, tokens) in enumerate(zip(FRAMES[:3], SENTENCES[:3], strict=True)):
        try:
            spelt, _ = functional.forced_align(
                logp[b : b + 1, :n], torch.tensor([tokens], dtype=torch.int32)
            )
        except (AttributeError, RuntimeError) as error:
            pytest.skip(f"torchaudio has no forced_align here: {error}")
        ours = [0 if u < 0 else tokens[u] for u in found[b, :n].tolist()]
        assert ours == spelt[0].tolist()


def test_nothing_to_align():
    logp, hlens, _, _ = batch(0)
    none = torch.zeros(len(FRAMES), dtype=torch.long)
    found = ctc_alignment(logp, hlens, none[:, None][:, :0], none)
    assert found.shape == (len(FRAMES), max(FRAMES)) and found.eq(-1).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_middle_frame_of_each_token(seed):
    logp, hlens, ys_pad, lengths = batch(seed)
    at = ctc_alignment(logp, hlens, ys_pad, lengths)
    middle = middle_frames(at)
    for row, kept, size in zip(at.tolist(), middle.tolist(), lengths, strict=True):
        expected = [-1] * len(row)
        for u in range(int(size)):
            frames = [t for t, token in enumerate(row) if token == u]
            if frames:
                expected[frames[(len(frames) - 1) // 2]] = u
        assert kept == expected
