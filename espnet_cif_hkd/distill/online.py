"""A PLM that teaches beside the training.

It is frozen and no part of the model: it is opened at the first batch that needs
it, and neither the state dict, DDP nor an optimiser ever sees it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill import teacher
from espnet_cif_hkd.distill.alignment import Alignment, align, apply_alignments
from espnet_cif_hkd.distill.units import TokenSpeller

_MAX_PADDED_TOKENS = 16384


class OnlineTeacher:
    """Runs the PLM on each batch.

    Args:
        config: which PLM and layer.
        token_list: of the ASR model.
        token_type: of the ASR model; None infers it.

    Attributes:
        n_unknown: words met that the PLM does not know.
        unknown: some of them.
        n_unk: ``<unk>`` tokens met, which the PLM reads as its own unknown token.
    """

    def __init__(
        self,
        config: teacher.TeacherConfig,
        token_list: Sequence[str],
        token_type: str | None = None,
    ):
        self.config = config
        self.token_list = list(token_list)
        self.token_type = token_type
        self.n_unknown = 0
        self.unknown: set[str] = set()
        self.n_unk = 0
        self._opened: _Opened | None = None
        self._told_long = False

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles, e.g. for spawned workers, open the PLM anew.
        return {**self.__dict__, "_opened": None}

    def open(self) -> "_Opened":
        """Open the PLM unless it is open."""
        if self._opened is None:
            tokenizer, model = teacher.open_teacher(self.config)
            speller = TokenSpeller(
                self.token_list,
                self.token_type,
                teacher.unknown_text(tokenizer),
                self.config.case,
            )
            limit = teacher.max_length(tokenizer, model.config)
            layer = teacher.layer_index(self.config, model.config.num_hidden_layers)
            self._opened = _Opened(tokenizer, model, speller, limit, layer)
        return self._opened

    def features(
        self, sequences: Sequence[Sequence[int]], device: torch.device
    ) -> Tensor:
        """See :class:`~espnet_cif_hkd.distill.teacher.Teacher`."""
        opened = self.open()
        places: dict[tuple[int, ...], int] = {}
        order = [places.setdefault(tuple(ids), len(places)) for ids in sequences]
        alignments = [self._align(opened, ids) for ids in places]
        if opened.model.device != device:
            opened.model.to(device)
        with torch.inference_mode():
            distinct = _run(opened, alignments, device)
            sizes = [a.n_tokens for a in alignments]
            parts = distinct.split(sizes)
            result = torch.cat([parts[n] for n in order]) if order else distinct
        # Tensors made in inference mode cannot be saved for a backward pass.
        return result.clone()

    def _align(self, opened: "_Opened", ids: tuple[int, ...]) -> Alignment:
        spelling = opened.speller(ids)
        self.n_unk += len(spelling.unknown)
        alignment = align(spelling, opened.tokenizer, opened.max_length)
        if alignment.unknown_text:
            if not self.n_unknown:
                logging.warning(
                    "teacher %s does not know %r and reads it as its unknown token; "
                    "said once, later ones are only counted",
                    self.config.name,
                    alignment.unknown_text[0],
                )
            self.n_unknown += len(alignment.unknown_text)
            if len(self.unknown) < 1000:
                self.unknown.update(alignment.unknown_text)
        if len(alignment.windows) > 1 and not self._told_long:
            self._told_long = True
            logging.warning(
                "a transcript of %d tokens is longer than the %d positions of teacher "
                "%s, which reads it in overlapping windows; said once",
                len(ids),
                opened.max_length,
                self.config.name,
            )
        return alignment


@dataclass
class _Opened:
    tokenizer: Any
    model: Any
    speller: TokenSpeller
    max_length: int
    layer: int


def _run(
    opened: _Opened, alignments: Sequence[Alignment], device: torch.device
) -> Tensor:
    """(N, C) float32 vectors of the sentences, in groups that bound the memory."""
    results = [torch.zeros(0, opened.model.config.hidden_size, device=device)]
    group: list[Alignment] = []
    count = longest = 0
    for item in alignments:
        wide = max(longest, *(len(w) for w in item.windows))
        if group and wide * (count + len(item.windows)) > _MAX_PADDED_TOKENS:
            results.append(_run_group(opened, group, device))
            group, count = [], 0
            wide = max(len(w) for w in item.windows)
        group.append(item)
        count, longest = count + len(item.windows), wide
    if group:
        results.append(_run_group(opened, group, device))
    return torch.cat(results)


def _run_group(
    opened: _Opened, alignments: Sequence[Alignment], device: torch.device
) -> Tensor:
    windows = [w for a in alignments for w in a.windows]
    lengths = [len(w) for w in windows]
    pad_id = opened.tokenizer.pad_token_id or 0
    width = max(lengths)
    ids = torch.tensor(
        [w + [pad_id] * (width - len(w)) for w in windows], device=device
    )
    mask = torch.arange(width, device=device) < torch.tensor(
        lengths, device=device
    ).unsqueeze(1)
    last = opened.model.config.num_hidden_layers
    # The teacher's numbers do not depend on the student's mixed precision.
    with torch.autocast(device.type, enabled=False):
        output = opened.model(
            input_ids=ids,
            attention_mask=mask.long(),
            output_hidden_states=opened.layer != last,
        )
    if opened.layer == last:
        hidden = output.last_hidden_state
    else:
        hidden = output.hidden_states[opened.layer]
    return apply_alignments(alignments, hidden, lengths)
