"""Log-probabilities of sentences by a causal language model of Hugging Face."""

from collections.abc import Sequence

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
        UserError: There is no such LM, it is damaged, or it is not causal.

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
        with our_names():
            fixed_place(self._config)
            self._tokenizer = open_tokenizer(self._config)
            self._model = load(self._config, "AutoModelForCausalLM")
        self._first = special_token(name, self._tokenizer, *OPENINGS)
        some = self._tokenizer.encode("a b c", add_special_tokens=False)
        try:
            require_causal(name, self._model, np.array([self._first, *some]))
        except UserError as error:
            raise UserError(f"{error}; choose another LM") from error
        self._model.to(device)
        # The logits of a text are in memory together.
        self._places = max(_SHORTEST_WINDOW, places_in_memory(self._model))
        self._limit = min(max_length(self._tokenizer, self._model), self._places)

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
        own = [text.lower() if self.case == "lower" else text for text in texts]
        ids = self._tokenizer(own, add_special_tokens=False)["input_ids"] if own else []
        found = pieces(ids, self._limit, max(1, self._limit // 2))
        owner = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
        result = np.zeros(len(ids))
        budget = min(run_units(self._model.device), self._places)
        for group in grouped([len(piece[0]) for piece in found], budget):
            some = [found[n] for n in group]
            scored = self._tokens_scored([piece[0] for piece in some])
            for (_, row, begin, end), values in zip(some, scored, strict=True):
                np.add.at(result, owner[row : row + end - begin], values[begin:end])
        return [float(value) for value in result]

    def _tokens_scored(self, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the log-probability of each token in nats: (L,) for each text."""
        lengths = np.array([len(text) for text in texts])
        ids = np.full((len(texts), lengths.max()), self._first)
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
        logits = logits_at(self._model, ids, valid, *np.array(places).T)
        device = logits.device
        labels = np.concatenate([np.asarray(text, np.int64) for text in texts])
        pairs = (on_device(np.array(part), device) for part in (rows, labels))
        chosen = logits.float().log_softmax(1)[tuple(pairs)]
        return np.split(chosen.cpu().numpy(), np.cumsum(lengths)[:-1])
