"""ASR tokens against PLM tokens, by the characters which both cover.

Each ASR token takes the mean of the PLM vectors whose tokens overlap it, weighted
by the number of shared characters; ``<eos>`` takes the PLM's closing token
(``[SEP]``). Where the units are the same this is the identity, as in the paper.

A token that shares no character with any PLM token takes the vector of a
neighbour: a space that of the word which follows it (as in ▁word), anything else,
e.g. a combining mark or a symbol without text, that of the PLM token before it;
at an end of the sentence the other neighbour, and in an empty one the closing
token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.units import Spelling
from espnet_cif_hkd.errors import UserError


@dataclass(frozen=True)
class Alignment:
    """One sentence, ready for the PLM.

    Attributes:
        windows: PLM token ids, opening and closing symbols included; more than one
            list when the sentence is longer than the PLM takes.
        rows, columns, weights: entries of the sparse (U + 1, P) matrix that turns
            the P PLM vectors of all windows, one after the other, into the vectors
            of U tokens and ``<eos>``. The weights of a row sum to 1.
        n_tokens: U + 1.
        unknown_text: the words of the sentence that the PLM does not know.
    """

    windows: list[list[int]]
    rows: list[int]
    columns: list[int]
    weights: list[float]
    n_tokens: int
    unknown_text: list[str]


def align(spelling: Spelling, tokenizer: Any, max_length: int) -> Alignment:
    """Align the tokens of one sentence to the tokens of a PLM.

    Args:
        spelling: text and spans of the ASR tokens.
        tokenizer: a fast Hugging Face tokenizer.
        max_length: PLM tokens of one window, opening and closing ones included.

    Raises:
        UserError: the tokenizer has no closing token for ``<eos>``.
    """
    encoded = tokenizer(
        spelling.text,
        add_special_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        truncation=False,
        verbose=False,
    )
    ids = list(encoded["input_ids"])
    inside = [n for n, s in enumerate(encoded.sequence_ids(0)) if s is not None]
    if inside:
        first, last = inside[0], inside[-1] + 1
        opening, content, closing = ids[:first], ids[first:last], ids[last:]
        offsets = [tuple(o) for o in encoded["offset_mapping"][first:last]]
    else:
        # Without text there is nothing between the opening and the closing symbols.
        content, offsets = [], []
        cut = len(ids) - (bool(ids) and ids[-1] in _closing_ids(tokenizer))
        opening, closing = ids[:cut], ids[cut:]
    if not closing or closing[-1] not in _closing_ids(tokenizer):
        closing = [*closing, closing_token(tokenizer)]
    windows, place = _windows(opening, content, closing, max_length)
    eos_place = sum(len(w) for w in windows) - 1

    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    shares = _overlaps(spelling, offsets)
    for row, share in enumerate(shares):
        total = sum(size for _, size in share)
        for column, size in share:
            rows.append(row)
            columns.append(place[column])
            weights.append(size / total)
        if not share:
            rows.append(row)
            columns.append(eos_place)
            weights.append(1.0)
    rows.append(len(shares))
    columns.append(eos_place)
    weights.append(1.0)

    own_unknown = {spelling.spans[n] for n in spelling.unknown}
    unknown_text = [
        spelling.text[start:end]
        for token, (start, end) in zip(content, offsets, strict=True)
        if token == tokenizer.unk_token_id and (start, end) not in own_unknown
    ]
    return Alignment(windows, rows, columns, weights, len(shares) + 1, unknown_text)


def closing_token(tokenizer: Any) -> int:
    """Id of the PLM token that teaches ``<eos>``: [SEP], or else the PLM's eos.

    Raises:
        UserError: the tokenizer has neither.
    """
    ids = _closing_ids(tokenizer)
    if not ids:
        raise UserError(
            f"teacher {tokenizer.name_or_path}: its tokenizer has neither a sep nor "
            "an eos token to teach <eos>; choose another teacher"
        )
    return ids[0]


def _closing_ids(tokenizer: Any) -> list[int]:
    ids = (tokenizer.sep_token_id, tokenizer.eos_token_id)
    return [int(i) for i in ids if i is not None]


def _overlaps(
    spelling: Spelling, offsets: Sequence[tuple[int, ...]]
) -> list[list[tuple[int, int]]]:
    """For each ASR token its (PLM token, shared characters)."""
    shares: list[list[tuple[int, int]]] = []
    low = 0
    for start, end in spelling.spans:
        while low < len(offsets) and offsets[low][1] <= start:
            low += 1
        share = []
        for column in range(low, len(offsets)):
            left, right = offsets[column][:2]
            if left >= end:
                break
            size = min(end, right) - max(start, left)
            if size > 0:
                share.append((column, size))
        if not share and offsets:
            space = spelling.text[start:end].isspace()
            column = low if space else low - 1
            share = [(min(max(column, 0), len(offsets) - 1), 1)]
        shares.append(share)
    return shares


def _windows(
    opening: list[int], content: list[int], closing: list[int], max_length: int
) -> tuple[list[list[int]], list[int]]:
    """Cut ``content`` into overlapping windows, each with both kinds of symbols.

    Returns:
        The windows, and for each content token its place in the windows one after
        the other: that in the window where it stands farthest from a cut.
    """
    size = max_length - len(opening) - len(closing)
    if size < 1:
        raise ValueError(f"a PLM of {max_length} positions leaves no room for text")
    if len(content) <= size:
        place = list(range(len(opening), len(opening) + len(content)))
        return [opening + content + closing], place
    stride = max(1, size // 2)
    starts = [*range(0, len(content) - size, stride), len(content) - size]
    windows = []
    place = [-1] * len(content)
    distance = [-1] * len(content)
    for number, start in enumerate(starts):
        base = number * max_length + len(opening)
        windows.append(opening + content[start : start + size] + closing)
        for n in range(size):
            # The ends of the sentence are no cuts.
            to_left = n if start else len(content)
            to_right = size - 1 - n if start + size < len(content) else len(content)
            if min(to_left, to_right) > distance[start + n]:
                distance[start + n] = min(to_left, to_right)
                place[start + n] = base + n
    return windows, place


def apply_alignments(
    alignments: Sequence[Alignment], hidden: Tensor, lengths: Sequence[int]
) -> Tensor:
    """PLM vectors to vectors of ASR tokens.

    Args:
        alignments: of the sentences.
        hidden: (W, P, C) PLM vectors, one row for each window of all sentences.
        lengths: W, valid positions of each window.

    Returns:
        (N, C) float32, the tokens of all sentences with their ``<eos>``.
    """
    rows: list[int] = []
    places: list[int] = []
    weights: list[float] = []
    flat: list[int] = []
    for window, length in enumerate(lengths):
        flat.extend(range(window * hidden.size(1), window * hidden.size(1) + length))
    n_tokens = n_places = 0
    for item in alignments:
        rows.extend(n_tokens + row for row in item.rows)
        places.extend(flat[n_places + column] for column in item.columns)
        weights.extend(item.weights)
        n_tokens += item.n_tokens
        n_places += sum(len(window) for window in item.windows)
    device = hidden.device
    vectors = hidden.reshape(-1, hidden.size(-1))[torch.tensor(places, device=device)]
    share = torch.tensor(weights, device=device)
    result = torch.zeros(n_tokens, hidden.size(-1), device=device)
    return result.index_add_(
        0, torch.tensor(rows, device=device), vectors.float() * share[:, None]
    )
