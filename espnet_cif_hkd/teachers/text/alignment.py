"""Align ASR tokens with PLM tokens by the characters that both cover.

The target of an ASR token is the mean of the vectors of the PLM tokens that overlap it,
weighted by the number of shared characters. The target of ``<eos>`` is the vector of
the PLM's closing token (``[SEP]``). With equal units this is the identity, as in the
paper (arXiv 2301.13003).

The space before a word does not belong to the word: SentencePiece (``▁word``) and
byte-level BPE (``Ġword``) join both, and add such a space at the beginning of a text. A
PLM token that consists of this space shares no character with a word.

A token that shares no character with any PLM token gets the vector of a neighbour. For
a space this is the next PLM token; for anything else, such as a combining mark or a
symbol without text, the previous one. At an end of the sentence it is the other
neighbour, and in an empty sentence the closing token.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.text.spelling import Spelling

# Part of a store's header: another alignment gives other vectors.
ALIGNMENT = 2
_SPACE_MARKS = "▁Ġ"  # how SentencePiece and byte-level BPE write a space


@dataclass(frozen=True)
class Alignment:
    """Input for the PLM and alignment of one sentence of U tokens.

    Attributes:
        windows: PLM token ids with opening and closing symbols; several lists if the
            sentence is longer than the limit of the PLM.
        rows, columns, weights: entries of the sparse (U + 1, P) matrix that maps the
            concatenated P vectors of all windows to the vectors of the tokens and
            ``<eos>``. The weights of a row sum to 1.
        n_tokens: U + 1.
        unknown_text: words of the sentence that the PLM does not know.
    """

    windows: list[list[int]]
    rows: list[int]
    columns: list[int]
    weights: list[float]
    n_tokens: int
    unknown_text: list[str]


def align(spelling: Spelling, tokenizer: Any, max_length: int) -> Alignment:
    """Align one sentence; see :func:`align_all`."""
    return align_all([spelling], tokenizer, max_length)[0]


def align_all(
    spellings: Sequence[Spelling], tokenizer: Any, max_length: int
) -> list[Alignment]:
    """Align the tokens of each sentence to the tokens of a PLM.

    Args:
        spellings: texts and spans of the ASR tokens.
        tokenizer: a fast Hugging Face tokenizer.
        max_length: length of a window in PLM tokens, with opening and closing ones.

    Raises:
        UserError: the tokenizer has no closing token for ``<eos>``.
    """
    if not spellings:
        return []
    # Tokenizers look up their special tokens at each access, which is slow.
    closing_ids = [closing_token(tokenizer), *_closing_ids(tokenizer)]
    unknown_id = tokenizer.unk_token_id
    encoded = tokenizer(
        [spelling.text for spelling in spellings],
        add_special_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        truncation=False,
        verbose=False,
    )
    return [
        _aligned(spelling, one, closing_ids, unknown_id, max_length)
        for spelling, one in zip(spellings, encoded.encodings, strict=True)
    ]


def _aligned(
    spelling: Spelling,
    encoding: Any,
    closing_ids: list[int],
    unknown_id: int | None,
    max_length: int,
) -> Alignment:
    ids: list[int] = encoding.ids
    pieces: list[str] = []
    inside = [n for n, s in enumerate(encoding.sequence_ids) if s is not None]
    if inside:
        first, last = inside[0], inside[-1] + 1
        opening, content, closing = ids[:first], ids[first:last], ids[last:]
        pieces = encoding.tokens[first:last]
        offsets = _covered(spelling.text, pieces, encoding.offsets[first:last])
    else:
        # Without text, only the opening and closing symbols are left.
        content, offsets = [], []
        cut = max((n for n, i in enumerate(ids) if i in closing_ids), default=len(ids))
        opening, closing = ids[:cut], ids[cut:]
    if not any(n in closing_ids for n in closing):
        closing = [*closing, closing_ids[0]]
    windows, place = _windows(opening, content, closing, max_length)
    # XLNet's closing token is not its last one.
    behind = next(n for n, i in enumerate(reversed(closing)) if i in closing_ids)
    eos_place = sum(len(w) for w in windows) - 1 - behind

    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    # A piece that is only white space is a neighbour of spaces only.
    words = [n for n, (a, b) in enumerate(offsets) if spelling.text[a:b].strip()]
    shares = _overlaps(spelling, offsets, words)
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
        if token == unknown_id and (start, end) not in own_unknown
    ]
    return Alignment(windows, rows, columns, weights, len(shares) + 1, unknown_text)


def closing_token(tokenizer: Any) -> int:
    """Return the id of the PLM token for ``<eos>``: [SEP], or else the PLM's eos.

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


def _covered(
    text: str, pieces: Sequence[str], offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the characters ``[start, end)`` of PLM tokens without surrounding space.

    If the tokenizer adds a space before a word as a separate token, the offset of this
    token is the first character of the word; here it covers nothing.
    """
    covered = []
    for piece, (start, end) in zip(pieces, offsets, strict=True):
        part = text[start:end]
        word = part.strip()
        # The letter Ġ of Maltese is no space mark.
        if word and piece != part and not piece.strip(_SPACE_MARKS):
            end = start
        elif word:
            start += len(part) - len(part.lstrip())
            end = start + len(word)
        covered.append((start, end))
    return covered


def _overlaps(
    spelling: Spelling, offsets: Sequence[tuple[int, int]], words: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """Return for each ASR token its pairs of PLM token and number of shared characters.

    Args:
        spelling: text and spans of the ASR tokens.
        offsets: characters of the PLM tokens.
        words: indices of the PLM tokens that cover more than white space.
    """
    shares: list[list[tuple[int, int]]] = []
    low = 0
    for start, end in spelling.spans:
        while low < len(offsets) and offsets[low][1] <= start:
            low += 1
        share = []
        for column in range(low, len(offsets)):
            left, right = offsets[column]
            if left >= end:
                break
            size = min(end, right) - max(start, left)
            if size > 0:
                share.append((column, size))
        if not share and offsets:
            if spelling.text[start:end].isspace() or not words:
                column = min(low, len(offsets) - 1)
            else:
                column = words[max(bisect_left(words, low) - 1, 0)]
            share = [(column, 1)]
        shares.append(share)
    return shares


def _windows(
    opening: list[int], content: list[int], closing: list[int], max_length: int
) -> tuple[list[list[int]], list[int]]:
    """Split ``content`` into overlapping windows with opening and closing symbols.

    Returns:
        The windows, and the position of each content token in the concatenated windows:
        in the window in which it is farthest from a cut.
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
    """Map PLM vectors to vectors of ASR tokens.

    Args:
        alignments: alignments of the sentences, at least one.
        hidden: (W, P, C) PLM vectors, W windows of all sentences.
        lengths: number of valid positions of each window, W numbers.

    Returns:
        (N, C) float32, the tokens of all sentences, each sentence with ``<eos>``.
    """
    sizes = [sum(map(len, item.windows)) for item in alignments]
    rows = _shifted([i.rows for i in alignments], [i.n_tokens for i in alignments])
    columns = _shifted([i.columns for i in alignments], sizes)
    weights = np.fromiter(chain(*(i.weights for i in alignments)), np.float32)
    # Row in the flattened ``hidden`` of each column of the concatenated windows.
    width = hidden.size(1)
    skipped = np.arange(len(lengths)) * width - np.cumsum([0, *lengths[:-1]])
    columns += np.repeat(skipped, lengths)[columns]
    device = hidden.device
    vectors = hidden.reshape(-1, hidden.size(-1))
    if len(rows) == rows[-1] + 1:
        # Each token has exactly one PLM token, with weight 1.
        return vectors.index_select(0, on_device(columns, device)).float()
    share = on_device(weights, device)[:, None]
    result = torch.zeros(int(rows[-1]) + 1, hidden.size(-1), device=device)
    return result.index_add_(
        0,
        on_device(rows, device),
        vectors.index_select(0, on_device(columns, device)).float() * share,
    )


def _shifted(parts: Sequence[list[int]], sizes: Sequence[int]) -> np.ndarray:
    """Concatenate parts, each shifted by the sizes of the parts before it."""
    numbers = np.fromiter(chain(*parts), np.int64)
    starts = np.cumsum([0, *sizes[:-1]])
    return numbers + np.repeat(starts, [len(part) for part in parts])
