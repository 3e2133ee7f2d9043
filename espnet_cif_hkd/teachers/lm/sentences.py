"""Log-probabilities of sentences by a causal language model of Hugging Face."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.lm.batches import grouped, pieces, run_units
from espnet_cif_hkd.teachers.lm.hf_model import (
    OPENINGS,
    load,
    logits_at,
    places_in_memory,
    require_causal,
    special_token,
)
from espnet_cif_hkd.teachers.lm.labels import our_names
from espnet_cif_hkd.teachers.text.files import fingerprint
from espnet_cif_hkd.teachers.text.plm import TeacherConfig, fixed_place, open_tokenizer
from espnet_cif_hkd.teachers.text.probe import max_length
from espnet_cif_hkd.teachers.text.spelling import CASES, in_capitals

_SHORTEST_WINDOW = 128  # tokens


class _Network(NamedTuple):
    """What scores need of an LM.

    Attributes:
        tokenizer, model: Of Hugging Face.
        first: Id of the token before a text.
        places: Positions whose logits may be in memory together.
        limit: Longest window, in tokens.
    """

    tokenizer: Any
    model: Any
    first: int
    places: int
    limit: int


def _network(config: TeacherConfig, device: str) -> _Network:
    name = config.name
    with our_names():
        tokenizer = open_tokenizer(config)
        model = load(config, "AutoModelForCausalLM")
    first = special_token(name, tokenizer, *OPENINGS)
    some = tokenizer.encode("a b c", add_special_tokens=False)
    try:
        require_causal(name, model, np.array([first, *some]))
    except UserError as error:
        raise UserError(f"{error}; choose another LM") from error
    model.to(device)
    places = max(_SHORTEST_WINDOW, places_in_memory(model))
    limit = min(max_length(tokenizer, model), places)
    return _Network(tokenizer, model, first, places, limit)


class SentenceScorer:
    """Scores texts by a causal LM.

    A score is the sum of the log-probabilities of the text's tokens, each given the
    tokens before it, in nats. The end of the text is not scored: an LM expects a full
    stop there, and transcripts have none. A long text is read in windows, in which
    each token has at least half of a window before it. A window is the LM's longest
    input, or 128 tokens or more whose logits take 256 MiB.

    Args:
        name: A folder, a hub name, or ``pkg://DISTRIBUTION/FOLDER``.
        revision: Commit or tag; required with a hub name.
        case: ``lower`` changes the texts to lower case, ``keep`` does not, ``auto``
            leaves the choice to :meth:`settle_case`.
        device: For example ``cpu``.

    Raises:
        UserError: There is no such LM.

    Attributes:
        case: ``auto``, ``keep`` or ``lower``.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        case: str = "auto",
        device: str = "cpu",
    ):
        if case not in CASES:
            raise UserError(f"case: {case!r} is unknown; use one of {', '.join(CASES)}")
        self.case = case
        self._config = TeacherConfig(name, 1, revision)
        self._device = device
        self._network: _Network | None = None
        with our_names():
            fixed_place(self._config)

    def open(self) -> None:
        """Read the LM, if it has not been read. The first scores do so, too.

        Raises:
            UserError: The LM is damaged, or it is not causal.
        """
        if self._network is None:
            self._network = _network(self._config, self._device)

    def identity(self) -> str:
        """Return a text that is equal for equal scores: of the LM's files and the case.

        A hub name stands for its files.
        """
        name, revision = self._config.name, self._config.revision
        return f"{fingerprint(name, revision) or f'{name}@{revision}'} {self.case}"

    def settle_case(self, texts: Sequence[str]) -> None:
        """Replace ``auto`` by ``lower`` if the texts are in capitals, else by ``keep``.

        Args:
            texts: Many texts, or the tokens that they consist of.
        """
        if self.case == "auto":
            self.case = "lower" if in_capitals(texts) else "keep"

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return the score of each text; an empty text has 0.

        Texts that begin alike share the computation of the output layer, if they are of
        similar length.
        """
        if not any(texts):
            return [0.0] * len(texts)
        self.open()
        network = self._network
        assert network is not None
        own = [text.lower() if self.case == "lower" else text for text in texts]
        ids = network.tokenizer(own, add_special_tokens=False)["input_ids"]
        found = pieces(ids, network.limit, max(1, network.limit // 2))
        owner = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
        result = np.zeros(len(ids))
        budget = min(run_units(network.model.device), network.places)
        for group in grouped([len(piece[0]) for piece in found], budget):
            some = [found[n] for n in group]
            scored = _tokens_scored(network, [piece[0] for piece in some])
            for (_, row, begin, end), values in zip(some, scored, strict=True):
                np.add.at(result, owner[row : row + end - begin], values[begin:end])
        return [float(value) for value in result]


def _tokens_scored(
    network: _Network, texts: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Return the log-probability of each token in nats: (L,) for each text."""
    lengths = np.array([len(text) for text in texts])
    ids = np.full((len(texts), lengths.max()), network.first)
    valid = np.arange(ids.shape[1]) < lengths[:, None]
    number: dict[tuple[int, ...], int] = {}
    places: list[tuple[int, int]] = []
    rows: list[int] = []
    for n, text in enumerate(texts):
        ids[n, 1 : len(text)] = text[:-1]
        for at in range(len(text)):
            row = number.setdefault(tuple(text[:at]), len(places))
            if row == len(places):
                places.append((n, at))
            rows.append(row)
    logits = logits_at(network.model, ids, valid, *np.array(places).T)
    device = logits.device
    labels = np.concatenate([np.asarray(text, np.int64) for text in texts])
    pairs = (on_device(np.array(part), device) for part in (rows, labels))
    chosen = logits.float().log_softmax(1)[tuple(pairs)]
    return np.split(chosen.cpu().numpy(), np.cumsum(lengths)[:-1])
