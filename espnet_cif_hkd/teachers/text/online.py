"""A teacher that runs the PLM during training.

The PLM is frozen and not part of the model: the first batch opens it, and it is not in
the state dict, in DDP or in an optimiser.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import TextTeacher, token_list_hash
from espnet_cif_hkd.teachers.payload import Payload
from espnet_cif_hkd.teachers.text import plm as teacher
from espnet_cif_hkd.teachers.text.alignment import (
    ALIGNMENT,
    Alignment,
    align_all,
    apply_alignments,
    closing_token,
)
from espnet_cif_hkd.teachers.text.files import (
    check_weights,
    fingerprint,
)
from espnet_cif_hkd.teachers.text.probe import hidden_states, max_length
from espnet_cif_hkd.teachers.text.spelling import TokenSpeller, infer_token_type

# Padded tokens in one run of the PLM. On a CPU, few tokens fit into its caches (a fifth
# faster) and have less padding; other devices need more tokens to be busy.
_RUN_TOKENS = {"cpu": 1024}
_RUN_TOKENS_ELSEWHERE = 8192


class OnlineTeacher(TextTeacher):
    """Runs the PLM on each batch.

    Args:
        config: the PLM and its layer.
        token_list: tokens of the ASR model.
        token_type: token type of the ASR model; None infers it.

    Attributes:
        n_unknown: number of words so far that the PLM does not know.
        unknown: some of these words.
        n_unk: number of ``<unk>`` tokens so far, which the PLM reads as its own unknown
            token.
    """

    def __init__(
        self,
        config: teacher.TeacherConfig,
        token_list: Sequence[str],
        token_type: str | None = None,
    ):
        self.config = config
        self.payload = Payload("tokens", config.dim)
        self.token_list = list(token_list)
        self.token_type = token_type
        self.n_unknown = 0
        self.unknown: set[str] = set()
        self.n_unk = 0
        self._opened: _Opened | None = None
        self._warned_long = False

    @classmethod
    def from_conf(
        cls,
        conf: Mapping[str, Any],
        token_list: Sequence[str],
        token_type: str | None = None,
    ) -> "OnlineTeacher":
        """See :class:`~espnet_cif_hkd.teachers.base.TextTeacher`."""
        if conf.get("teacher_conf"):
            raise UserError(
                "criterion_conf.teacher_conf: teacher_type plm has no such options; "
                "remove it"
            )
        return cls(teacher.teacher_config(conf), token_list, token_type)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles, such as those of spawned workers, open the PLM again.
        return {**self.__dict__, "_opened": None}

    def open(self) -> "_Opened":
        """Open the PLM, unless it is open."""
        if self._opened is None:
            tokenizer, model = teacher.open_teacher(self.config)
            speller = TokenSpeller(
                self.token_list,
                self.token_type,
                teacher.unknown_text(tokenizer),
                self.config.case,
            )
            limit = max_length(tokenizer, model)
            layer = teacher.layer_index(self.config, model.config.num_hidden_layers)
            self._opened = _Opened(tokenizer, model, speller, limit, layer)
        return self._opened

    def features(
        self, sequences: Sequence[Sequence[int]], device: torch.device
    ) -> Tensor:
        """See :class:`~espnet_cif_hkd.teachers.base.TextTeacher`."""
        opened = self.open()
        places: dict[tuple[int, ...], int] = {}
        order = [places.setdefault(tuple(ids), len(places)) for ids in sequences]
        alignments = self._align(opened, list(places))
        if opened.model.device != device:
            opened.model.to(device)
        sizes = [a.n_tokens for a in alignments]
        # Not in inference mode: its tensors cannot be saved for a backward pass.
        result = torch.empty(sum(sizes), opened.model.config.hidden_size, device=device)
        with torch.inference_mode():
            _run(opened, alignments, result)
        if len(order) > len(places):
            parts = result.split(sizes)
            result = torch.cat([parts[n] for n in order])
        return result

    def describe(self) -> dict[str, Any]:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        layers: dict[str, Any] = {"layer": self.config.layer}
        if self._opened is not None:
            count = self._opened.model.config.num_hidden_layers
            layers = {"layer": self._opened.layer, "num_layers": count}
        return {
            "type": "plm",
            "name": self.config.name,
            "revision": self.config.revision,
            **layers,
            "teacher_dtype": self.config.dtype,
            "case": self.config.case,
            "token type": self.token_type or infer_token_type(self.token_list),
            "n_tokens": len(self.token_list),
            "token list": token_list_hash(self.token_list),
            "alignment": ALIGNMENT,
        }

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`~espnet_cif_hkd.teachers.base.AbsTeacher`."""
        return fingerprint(self.config.name, self.config.revision, cache)

    def check(self) -> list[str]:
        """Check config.json, tokenizer and weight names; takes one or two seconds.

        See :class:`~espnet_cif_hkd.teachers.base.TextTeacher`.
        """
        check_weights(self.config)
        tokenizer = teacher.open_tokenizer(self.config)
        closing_token(tokenizer)
        if not self.token_list:
            return []
        speller = TokenSpeller(
            self.token_list,
            self.token_type,
            teacher.unknown_text(tokenizer),
            self.config.case,
        )
        unknown, n_texts = unknown_tokens(speller, self.token_list, tokenizer)
        if n_texts and len(unknown) == n_texts:
            raise UserError(
                f"teacher {self.config.name}: its tokenizer knows none of the "
                f"{n_texts} tokens of the token list; choose a teacher of this "
                "language, or get a complete copy"
            )
        return unknown

    def _align(
        self, opened: "_Opened", sequences: Sequence[tuple[int, ...]]
    ) -> list[Alignment]:
        spellings = [opened.speller(ids) for ids in sequences]
        self.n_unk += sum(len(spelling.unknown) for spelling in spellings)
        alignments = align_all(spellings, opened.tokenizer, opened.max_length)
        for ids, alignment in zip(sequences, alignments, strict=True):
            self._count(opened, len(ids), alignment)
        return alignments

    def _count(self, opened: "_Opened", n_tokens: int, alignment: Alignment) -> None:
        """Count unknown words; warn once about the first, and once about windows."""
        if alignment.unknown_text:
            if not self.n_unknown:
                logging.warning(
                    "teacher %s does not know %r and reads it as its unknown token; "
                    "logged once, later words are only counted",
                    self.config.name,
                    alignment.unknown_text[0],
                )
            self.n_unknown += len(alignment.unknown_text)
            if len(self.unknown) < 1000:
                self.unknown.update(alignment.unknown_text)
        if len(alignment.windows) > 1 and not self._warned_long:
            self._warned_long = True
            logging.warning(
                "a transcript of %d tokens is longer than the %d positions of teacher "
                "%s, which reads it in overlapping windows; logged once",
                n_tokens,
                opened.max_length,
                self.config.name,
            )


@dataclass
class _Opened:
    tokenizer: Any
    model: Any
    speller: TokenSpeller
    max_length: int
    layer: int


def _run(opened: _Opened, alignments: Sequence[Alignment], result: Tensor) -> None:
    """Fill ``result`` (N, C) with the vectors of the sentences.

    Sentences of similar length run together; the size of these groups bounds the
    memory.
    """
    starts = np.cumsum([0, *(a.n_tokens for a in alignments)])
    widths = [max(map(len, a.windows)) for a in alignments]
    budget = _RUN_TOKENS.get(result.device.type, _RUN_TOKENS_ELSEWHERE)
    group: list[int] = []
    count = 0

    def flush() -> None:
        items = [alignments[n] for n in group]
        rows = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in group])
        vectors = _run_group(opened, items, result.device)
        result.index_copy_(0, on_device(rows, result.device), vectors)

    for n in sorted(range(len(alignments)), key=widths.__getitem__):
        n_windows = len(alignments[n].windows)
        if group and widths[n] * (count + n_windows) > budget:
            flush()
            group, count = [], 0
        group.append(n)
        count += n_windows
    if group:
        flush()


def _run_group(
    opened: _Opened, alignments: Sequence[Alignment], device: torch.device
) -> Tensor:
    windows = [w for a in alignments for w in a.windows]
    lengths = [len(w) for w in windows]
    pad_id = opened.tokenizer.pad_token_id or 0
    width = max(lengths)
    padded = np.array([w + [pad_id] * (width - len(w)) for w in windows])
    valid = np.arange(width) < np.array(lengths)[:, None]
    ids = on_device(padded, device)
    mask = on_device(valid.astype(np.int64), device)
    # The mixed precision of the student must not change the teacher's vectors.
    with torch.autocast(device.type, enabled=False):
        hidden = hidden_states(opened.model, opened.layer, ids, mask)
    return apply_alignments(alignments, hidden, lengths)


def unknown_tokens(
    speller: TokenSpeller, token_list: Sequence[str], tokenizer: Any
) -> tuple[list[str], int]:
    """Return the tokens that the PLM does not know, and the number of tokens with text.

    ``<unk>`` is in neither.
    """
    texts, names = [], []
    for token_id, name in enumerate(token_list):
        spelling = speller([token_id])
        if spelling.text.strip() and not spelling.unknown:
            texts.append(spelling.text)
            names.append(name)
    if not texts:
        return [], 0
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
    unknown = [
        name
        for name, ids in zip(names, encoded["input_ids"], strict=True)
        if tokenizer.unk_token_id in ids
    ]
    return unknown, len(names)
