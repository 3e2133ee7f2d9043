"""Decoding from Python."""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin import register
from espnet_cif_hkd.plugin.compat import Hypothesis, TooShortUttError
from espnet_cif_hkd.search.greedy import GreedyHypothesis, greedy_search

# ESPnet's class reads a configuration that names our classes.
register()

from espnet2.bin.asr_inference import Speech2Text as ESPnetSpeech2Text  # noqa: E402

# What a greedy search leaves no choice of; ESPnet's first two defaults are others.
_GREEDY: dict[str, Any] = {
    "beam_size": 1,
    "ctc_weight": 0.0,
    "nbest": 1,
    "minlenratio": 0.0,
    "lm_train_config": None,
    "ngram_file": None,
    "streaming": False,
    "time_sync": False,
    "partial_ar": False,
}


class Speech2Text(ESPnetSpeech2Text):
    """ESPnet's ``Speech2Text`` in a Python where ESPnet knows our classes.

    Arguments and results are ESPnet's. Two things are added: audio that is too short
    for the encoder's sub-sampling gives one empty hypothesis instead of an exception,
    and there is a greedy search.

    Args:
        args: ESPnet's.
        greedy: Search with :func:`greedy_search` instead of ESPnet's beam search: the
            text of ``beam_size=1, ctc_weight=0.0``, which are then set, several times
            faster, and a list of utterances is searched as one batch with both releases
            of ESPnet. The encoder ``cif_conformer`` takes it as one batch, too;
            ESPnet's own, whose frames depend on padding, one after the other.
        kwargs: ESPnet's.

    Raises:
        UserError: If an option contradicts ``greedy``, or the decoder is not ``cif``.

    Example:
        >>> speech2text = Speech2Text("exp/asr_x/config.yaml", "exp/asr_x/9epoch.pth")
        >>> text, tokens, token_ids, hypothesis = speech2text(samples)[0]
    """

    greedy = False

    def __init__(self, *args: Any, greedy: bool = False, **kwargs: Any) -> None:
        if greedy:
            kwargs.update(_greedy_options(*args, **kwargs))
        super().__init__(*args, **kwargs)
        self._set_greedy(greedy)

    def _set_greedy(self, greedy: bool) -> None:
        if greedy and not isinstance(self.asr_model.decoder, CIFDecoder):
            raise UserError(
                "greedy: it needs a model with 'decoder: cif', got "
                f"{type(self.asr_model.decoder).__name__}; use beam_size=1"
            )
        self.greedy = greedy

    def __call__(
        self, speech: torch.Tensor | np.ndarray | list[torch.Tensor | np.ndarray]
    ) -> Any:
        """Decode one utterance.

        Args:
            speech: Samples ``(S,)`` at the rate of the training data, float in
                [-1, 1]. With ``greedy``, and with ESPnet 202611, also a list of
                utterances, which are decoded together.

        Returns:
            The n best ``(text, tokens, token_ids, hypothesis)``, best first; for a list
            of utterances a list of these.
        """
        try:
            if not self.greedy:
                return super().__call__(speech)
            if isinstance(speech, list | tuple):
                return self._greedily(speech)
            return self._greedily([speech])[0]
        except TooShortUttError as error:
            if isinstance(speech, list | tuple):
                return [self(one) for one in speech]
            logging.warning("%s: the hypothesis is empty", error)
            return [self._nothing()]

    @torch.no_grad()
    def _greedily(self, speech: Sequence[torch.Tensor | np.ndarray]) -> list[Any]:
        waves = [torch.as_tensor(one).to(getattr(torch, self.dtype)) for one in speech]
        # Frames of ESPnet's own encoders depend on the padding, much so in 202511.
        together = isinstance(self.asr_model.encoder, CIFConformerEncoder)
        batches = [waves] if together else [[wave] for wave in waves]
        frames: list[torch.Tensor] = []
        for batch in batches:
            padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            lengths = torch.tensor([len(wave) for wave in batch])
            hs_pad, hlens = self.asr_model.encode(
                padded.to(self.device), lengths.to(self.device)
            )
            if isinstance(hs_pad, tuple):  # intermediate outputs are not used
                hs_pad = hs_pad[0]
            frames += [
                hs[:n]
                for hs, n in zip(hs_pad, hlens.clamp(min=0).tolist(), strict=True)
            ]
        found = greedy_search(
            self.asr_model.decoder,
            torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
            torch.tensor([len(hs) for hs in frames]),
            self.maxlenratio,
        )
        return [[self._result(one)] for one in found]

    def _result(
        self, found: GreedyHypothesis
    ) -> tuple[str | None, list[str], list[int], Any]:
        token_ids = [token for token in found.yseq[1:-1].tolist() if token != 0]
        tokens = self.converter.ids2tokens(token_ids)
        text = None if self.tokenizer is None else self.tokenizer.tokens2text(tokens)
        hypothesis = Hypothesis(
            yseq=found.yseq,
            score=found.score,
            scores={"decoder": found.score},
            states={},
        )
        return text, tokens, token_ids, hypothesis

    def _nothing(self) -> tuple[str | None, list[str], list[int], Any]:
        ends = torch.tensor([self.asr_model.sos, self.asr_model.eos])
        hypothesis = Hypothesis(yseq=ends, score=0.0, scores={}, states={})
        return "" if self.tokenizer is not None else None, [], [], hypothesis

    @classmethod
    def from_pretrained(
        cls, model_tag: str | None = None, **kwargs: Any
    ) -> "Speech2Text":
        """Build from a model that is downloaded by its tag, or from ``kwargs`` alone.

        Args:
            model_tag: A tag of ESPnet's model zoo or of the Hugging Face hub.
            kwargs: Arguments of the constructor.
        """
        greedy = kwargs.pop("greedy", False)
        if greedy:
            kwargs.update(_greedy_options(**kwargs))
        built = ESPnetSpeech2Text.from_pretrained(model_tag, **kwargs)
        # ESPnet's method builds ESPnet's class. It has the same state.
        built.__class__ = cls
        built._set_greedy(greedy)
        return built


def _greedy_options(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Options of ESPnet's class that ``greedy`` implies.

    Raises:
        UserError: If one of them is given another value.
    """
    given = inspect.signature(ESPnetSpeech2Text).bind_partial(*args, **kwargs).arguments
    for name, value in _GREEDY.items():
        if given.get(name, value) != value:
            raise UserError(
                f"greedy: {name} is {given[name]!r}, but a greedy search has "
                f"{name}={value!r}; leave out one of the two"
            )
    return {name: _GREEDY[name] for name in ("beam_size", "ctc_weight")}
