"""The base class of language models that teach probabilities, one row for each unit.

A row is the K most probable labels of one unit, from the softmax of the LM's logits
divided by a temperature. ``<blank>``, ``<unk>`` and ``<sos/eos>`` are no labels: they
are removed before the softmax, and the K probabilities sum to 1. Units, K and
temperature are choices of this package: after the abstract of arXiv 2110.10429;
architecture, weights and temperatures are ours.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.losses.soft_labels import largest_probabilities
from espnet_cif_hkd.teachers.base import (
    AbsTeacher,
    Targets,
    Tokens,
    own_conf,
    sequence_key,
    token_list_hash,
)
from espnet_cif_hkd.teachers.payload import Payload

UNKNOWN = "<unk>"
SPECIALS = ("<blank>", UNKNOWN, "<sos/eos>")  # never labels
TOP_K = 8
TEMPERATURE = 3.0

# Names of other teachers' options in messages, and ours; not inside of paths.
_OUR_NAMES = {
    r"criterion_conf\.teacher": "lm",
    r"criterion_conf\.teacher_revision": "lm_revision",
    "teacher": "lm",
    "teacher_store": "label_store",
}


class LMTeacher(AbsTeacher[Tokens]):
    """A language model that gives each unit of a sequence its most probable labels.

    An item is the sequence of unit ids of an utterance, in any unit. It has one row for
    each unit and none for ``<eos>``. The rows of an item do not depend on the other
    items of a batch.

    Args:
        name: The LM, as in ``lm``.
        token_list: Tokens of the unit in ESPnet's order, with the special ones.
        conf: ``temperature`` (default 3), ``top_k`` (default 8; at most the number of
            labels, which gives the full distribution).

    Raises:
        UserError: An option is out of range, or the token list has no label.

    Attributes:
        token_list: Tokens of the unit.
        labels: (L,) int64, sorted ids of the tokens that are labels.
        temperature: Divisor of the logits.
        payload: Kind ``labels``: ``ids`` (R, K) int64 and ``probabilities`` (R, K)
            float32, the most probable first.
        kind: Name of the class in ``lm_type``.
        is_control: Whether the labels hold no knowledge about the text, so that their
            perplexity is not checked.
        sample_units: Number of units for the check of the perplexity.
    """

    kind = ""
    is_control = False
    sample_units = 4000

    def __init__(self, name: str, token_list: Sequence[str], conf: Mapping[str, Any]):
        self.name = name
        self.token_list = tuple(token_list)
        self.labels = label_ids(token_list)
        if not len(self.labels):
            raise UserError(
                "the unit has no labels: its token list holds only "
                f"{', '.join(self.token_list) or 'nothing'}; name ESPnet's token list"
            )
        self.temperature, top_k = label_options(conf)
        self.payload = Payload("labels", min(top_k, len(self.labels)))
        self._specials = np.setdiff1d(np.arange(len(self.token_list)), self.labels)

    @classmethod
    @abstractmethod
    def from_conf(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> "LMTeacher":
        """Build the teacher of a mapping of options; opens nothing.

        Raises:
            UserError: An option is missing or wrong.
        """

    @abstractmethod
    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield the logits of all units, some of them at a time.

        Args:
            items: Unit ids of sentences, which may be empty.
            device: Device of the computation.

        Yields:
            Numbers of rows (n,) int64, counted over the concatenated items, and logits
            (n, V) over the token list, which the caller may overwrite. The columns of
            special tokens may hold any value. A row with the number -1 is padding.
        """

    def check(self) -> None:
        """Check everything that needs no weights.

        Raises:
            UserError: A file or an option of the LM is wrong, or its tokens are others.
        """

    def examine(self, items: Sequence[Tokens]) -> list[str]:
        """Check that the LM reads these sentences as it should; remarks for the log.

        Raises:
            UserError: It does not.
        """
        return []

    def targets(self, items: Sequence[Tokens], device: torch.device) -> Targets:
        """See :class:`AbsTeacher`; ``ids`` and ``probabilities``, (R, K) each."""
        return self._run(items, device, None)

    def evaluate(
        self, items: Sequence[Tokens], device: torch.device
    ) -> tuple[Targets, Tensor]:
        """Return the targets, and how probable the units themselves are.

        Returns:
            The targets, and (R,) float32: the natural logarithm of the probability of
            each unit among all labels, at temperature 1; any value for special tokens.
        """
        log_probabilities = torch.zeros(sum(map(len, items)), device=device)
        return self._run(items, device, log_probabilities), log_probabilities

    def key(self, item: Tokens) -> bytes:
        """Return :func:`sequence_key` of the unit ids."""
        return sequence_key(item)

    def n_rows(self, item: Tokens) -> int:
        """Return the number of units."""
        return len(item)

    def spell(self, item: Tokens) -> str:
        """Return the units of a sentence."""
        units = " ".join(self.token_list[n] for n in item)
        return f"the sentence {units if len(units) <= 80 else units[:77] + '...'!r}"

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        return {
            "type": self.kind,
            "name": self.name,
            "temperature": self.temperature,
            "top_k": self.payload.width,
            "n_tokens": len(self.token_list),
            "token list": token_list_hash(self.token_list),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Copies, such as those of spawned processes, open the LM again."""
        return {**self.__dict__, "_opened": None}

    def _run(
        self, items: Sequence[Tokens], device: torch.device, units: Tensor | None
    ) -> Targets:
        """Compute the targets; fill ``units`` (R,) with log-probabilities if given."""
        sizes = [len(item) for item in items]
        shape = sum(sizes), self.payload.width
        # Not in inference mode: its tensors cannot be saved for a backward pass.
        ids = torch.empty(shape, dtype=torch.int64, device=device)
        probabilities = torch.empty(shape, device=device)
        specials = on_device(self._specials, device)
        true = on_device(flat_ids(items), device)
        # The mixed precision of the student must not change the teacher's labels.
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for rows, raw in self.logits(items, device):
                logits = raw.float().index_fill_(1, specials, -math.inf)
                best = largest_probabilities(
                    logits, self.payload.width, self.temperature
                )
                # K labels of a row are quickly copied, its logits are not.
                kept = on_device(np.flatnonzero(rows >= 0), device)
                places = on_device(rows[rows >= 0], device)
                for target, values in zip((probabilities, ids), best, strict=True):
                    target.index_copy_(0, places, values.index_select(0, kept))
                if units is not None:
                    logits = logits.index_select(0, kept)
                    own = logits.gather(1, true[places][:, None])[:, 0]
                    units.index_copy_(0, places, own - logits.logsumexp(1))
        return Targets(sizes, {"ids": ids, "probabilities": probabilities})


def label_ids(token_list: Sequence[str]) -> np.ndarray:
    """Return the ids of the tokens that are labels: (L,) int64, sorted."""
    found = [n for n, token in enumerate(token_list) if token not in SPECIALS]
    return np.array(found, dtype=np.int64)


def label_options(conf: Mapping[str, Any]) -> tuple[float, int]:
    """Return temperature and K of a mapping of options.

    Raises:
        UserError: One of them is out of range.
    """
    temperature, top_k = conf.get("temperature"), conf.get("top_k")
    temperature = TEMPERATURE if temperature is None else temperature
    top_k = TOP_K if top_k is None else top_k
    if (
        isinstance(temperature, bool)
        or not isinstance(temperature, (int, float))
        or not 0 < temperature < math.inf
    ):
        raise UserError(f"temperature is {temperature!r}; set it to a number > 0")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise UserError(f"top_k is {top_k!r}; set it to an integer >= 1")
    return float(temperature), top_k


def own_options(conf: Mapping[str, Any], kind: str, *known: str) -> dict[str, Any]:
    """Return ``lm_conf``, which may have the ``known`` options only.

    Raises:
        UserError: It is no mapping, or has another one.
    """
    options = own_conf(conf, "lm_conf")
    for name in options:
        if name not in known:
            raise UserError(
                f"lm_conf: lm_type {kind} has no option {name!r}; it has "
                f"{', '.join(known) or 'none'}"
            )
    return options


def lm_name(conf: Mapping[str, Any], what: str) -> str:
    """Return ``lm``.

    Args:
        conf: The options.
        what: What it names, for the message.

    Raises:
        UserError: It is not set.
    """
    name = conf.get("lm")
    if not name or str(name).lower() in ("none", "null", "nil"):
        raise UserError(f"lm is not set; name {what}")
    return str(name)


def flat_ids(items: Sequence[Tokens]) -> np.ndarray:
    """Return the ids of all items, one after the other: (R,) int64."""
    return np.fromiter(chain.from_iterable(items), np.int64, sum(map(len, items)))


@contextmanager
def our_names() -> Iterator[None]:
    """Replace the names of other teachers' options in messages by those of an LM."""
    try:
        yield
    except UserError as error:
        raise UserError(in_our_names(str(error))) from error


def in_our_names(message: str) -> str:
    """Return a message with the names of an LM's options."""
    for theirs, ours in _OUR_NAMES.items():
        message = re.sub(rf"(?<![\w/.-]){theirs}(?![\w/.-])", ours, message)
    return message
