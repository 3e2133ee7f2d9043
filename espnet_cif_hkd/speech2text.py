"""Decoding from Python."""

import logging
from typing import Any

import numpy as np
import torch

from espnet_cif_hkd.compat import Hypothesis, TooShortUttError
from espnet_cif_hkd.plugin import register

# ESPnet's class reads a configuration that names our classes.
register()

from espnet2.bin.asr_inference import Speech2Text as ESPnetSpeech2Text  # noqa: E402


class Speech2Text(ESPnetSpeech2Text):
    """ESPnet's ``Speech2Text`` in a Python where ESPnet knows our classes.

    Arguments and results are ESPnet's. One thing is added: audio that is too short for
    the encoder's sub-sampling gives one empty hypothesis instead of an exception.

    Example:
        >>> speech2text = Speech2Text("exp/asr_x/config.yaml", "exp/asr_x/9epoch.pth")
        >>> text, tokens, token_ids, hypothesis = speech2text(samples)[0]
    """

    def __call__(
        self, speech: torch.Tensor | np.ndarray | list[torch.Tensor | np.ndarray]
    ) -> Any:
        """Decode one utterance.

        Args:
            speech: Samples ``(S,)`` at the rate of the training data, float in
                [-1, 1]. ESPnet 202611 also takes a list of utterances.

        Returns:
            The n best ``(text, tokens, token_ids, hypothesis)``, best first; for a list
            of utterances a list of these.
        """
        try:
            return super().__call__(speech)
        except TooShortUttError as error:
            if isinstance(speech, list | tuple):
                return [self(one) for one in speech]
            logging.warning("%s: the hypothesis is empty", error)
            return [self._nothing()]

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
        built = ESPnetSpeech2Text.from_pretrained(model_tag, **kwargs)
        # ESPnet's method builds ESPnet's class. It has the same state.
        built.__class__ = cls
        return built
