"""Decoding from Python."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.cif_conformer import CIFConformerEncoder
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.calibration import Calibration, read_calibration
from espnet_cif_hkd.inference.model_files import downloaded
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.rescoring import Rescoring
from espnet_cif_hkd.inference.results import (
    Found,
    Frames,
    ResultMaker,
    sampling_rate,
)
from espnet_cif_hkd.inference.speech import Samples, checked_samples
from espnet_cif_hkd.models.distilling import DistillingMixin
from espnet_cif_hkd.models.own_features import batches_change_nothing
from espnet_cif_hkd.models.short_audio import refuse_short_audio
from espnet_cif_hkd.plugin import register
from espnet_cif_hkd.plugin.compat import Hypothesis, TooShortUttError
from espnet_cif_hkd.search.greedy import GreedyHypothesis, greedy_search
from espnet_cif_hkd.search.nar import search_with_fallback
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search

# ESPnet's class reads a configuration that names our classes.
register()

from espnet2.asr.decoder.transducer_decoder import TransducerDecoder  # noqa: E402
from espnet2.bin.asr_inference import Speech2Text as ESPnetSpeech2Text  # noqa: E402

# Options that a greedy search implies; ESPnet's first two defaults differ.
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
    """ESPnet's ``Speech2Text`` with the classes of this package registered.

    Arguments and results are ESPnet's. Additions: a greedy search; one empty hypothesis
    instead of an exception if the audio is too short for the encoder; lists of
    utterances with both releases of ESPnet; checks of the audio; results with times.

    Args:
        args: ESPnet's arguments.
        greedy: Use :func:`greedy_search` or, for a transducer,
            :func:`transducer_greedy_search` instead of ESPnet's beam search. The text
            is that of ``beam_size=1, ctc_weight=0.0`` (set automatically), several
            times faster. A list of utterances is searched as one batch. The encoder
            ``cif_conformer`` also encodes it as one batch; ESPnet's encoders, whose
            output depends on padding, encode one utterance at a time.
        one_pass: Use the one-pass decoder of ``model_conf.nar_conf`` in a greedy
            search. A model with ``decoder: cif_nar`` needs no option.
        fallback_below: With ``one_pass``, utterances whose least probable token has a
            probability below this are decoded by ``decoder: cif``; 0: none.
        return_times: Return a :class:`Recognition` for each utterance, with the times
            and confidences of its tokens, words and segments.
        calibrated: With ``return_times``, use ``calibration.json`` beside the model.
        kwargs: ESPnet's arguments.

    Attributes:
        results: With ``return_times``, makes the results.
        rescoring: With ``return_times``, sorts the hypotheses of the search; None:
            nothing does.

    Raises:
        UserError: If an option contradicts ``greedy``, or the decoder is neither
            ``cif``, ``cif_nar`` nor ``transducer``; with ``return_times``, if the model
            knows no times, its sampling rate is unknown, or the calibration is of
            another model.

    Example:
        >>> speech2text = Speech2Text("exp/asr_x/config.yaml", "exp/asr_x/9epoch.pth")
        >>> text, tokens, token_ids, hypothesis = speech2text(samples)[0]
    """

    greedy = False
    one_pass = False
    fallback_below = 0.0
    results: ResultMaker | None = None
    rescoring: Rescoring | None = None

    def __init__(
        self,
        *args: Any,
        greedy: bool = False,
        one_pass: bool = False,
        fallback_below: float = 0.0,
        return_times: bool = False,
        calibrated: bool = True,
        **kwargs: Any,
    ) -> None:
        if greedy:
            kwargs.update(_greedy_options(*args, **kwargs))
        given = inspect.signature(ESPnetSpeech2Text).bind_partial(*args, **kwargs)
        super().__init__(*args, **kwargs)
        self._set_greedy(greedy)
        self._set_one_pass(one_pass, fallback_below)
        if return_times:
            self._set_times(given.arguments, calibrated)

    def _set_times(self, given: Mapping[str, Any], calibrated: bool) -> None:
        for name in ("enh_s2t_task", "multi_asr", "hugging_face_decoder", "streaming"):
            if given.get(name):
                raise UserError(
                    f"return_times does not work with {name}: leave out one"
                )
        file = given.get("asr_model_file") if calibrated else None
        self.results = ResultMaker(
            self.asr_model,
            self.tokenizer,
            sampling_rate(self.asr_model, self.asr_train_args),
            Calibration() if file is None else read_calibration(file),
        )

    def _set_greedy(self, greedy: bool) -> None:
        decoder = self.asr_model.decoder
        if greedy and not isinstance(decoder, CIFDecoder | TransducerDecoder):
            raise UserError(
                "greedy needs a model with 'decoder: cif' or 'decoder: transducer', "
                f"got {type(decoder).__name__}; use beam_size=1"
            )
        self.greedy = greedy

    def _set_one_pass(self, one_pass: bool, fallback_below: float) -> None:
        if fallback_below and not one_pass:
            raise UserError("fallback_below needs one_pass=True and greedy=True")
        if one_pass and getattr(self.asr_model, "nar", None) is None:
            raise UserError(
                "one_pass needs a model that was trained with model_conf.nar_conf; "
                "leave it out"
            )
        if one_pass and not self.greedy:
            raise UserError("one_pass is a greedy search: give greedy=True, too")
        if not 0 <= fallback_below <= 1:
            raise UserError(f"fallback_below {fallback_below} must be from 0 to 1")
        self.one_pass, self.fallback_below = one_pass, fallback_below

    @property
    def sample_rate(self) -> int:
        """Sampling rate of the audio in Hz; ESPnet's ``ForcedAligner`` reads it.

        Raises:
            AttributeError: It is unknown.
        """
        try:
            return sampling_rate(self.asr_model, self.asr_train_args)
        except UserError as error:
            raise AttributeError(str(error)) from error

    def __call__(self, speech: Samples | Sequence[Samples]) -> Any:
        """Decode one utterance or a list of utterances.

        Args:
            speech: Samples ``(S,)`` at the sampling rate of the training data, float in
                [-1, 1] or int16. Several channels ``(S, C)`` only for a model whose
                frontend combines channels; features ``(T, F)`` for a model without
                frontend. A list of these is decoded as one batch with ``greedy`` and,
                except for a transducer, with ESPnet 202611, otherwise one after the
                other.

        Returns:
            The n best ``(text, tokens, token_ids, hypothesis)``, best first; with
            ``return_times`` a :class:`Recognition`; for a list a list of these, in the
            same order.

        Raises:
            UserError: If the type, shape or a value of an utterance is wrong; the
                message has its index in the list.
        """
        if isinstance(speech, list | tuple):
            return self._decode_list(
                [
                    self._checked(one, f"speech[{index}]")
                    for index, one in enumerate(speech)
                ]
            )
        return self._decode(self._checked(speech, "speech"))

    def _checked(self, speech: Any, name: str) -> torch.Tensor:
        frontend = getattr(self.asr_model, "frontend", self.asr_model)
        checked = checked_samples(speech, name, frontend)
        return checked.to(getattr(torch, self.dtype))

    def _decode(self, speech: torch.Tensor) -> Any:
        if self.results is not None:
            return self._timed([speech], self.results)[0]
        try:
            if len(speech) == 0:
                raise TooShortUttError("has no samples", 0, 1)
            refuse_short_audio(self.asr_model.frontend, speech[None])
            return self._greedily([speech])[0] if self.greedy else self._beam(speech)
        except TooShortUttError as error:
            logging.warning("%s: the hypothesis is empty", error)
            return [self._nothing()]

    def _decode_list(self, speech: list[torch.Tensor]) -> Any:
        if self.results is not None:
            return self._timed(speech, self.results)
        in_batches = self.greedy or (
            hasattr(ESPnetSpeech2Text, "batch_decode")
            and not self.asr_model.use_transducer_decoder
            and all(one.dim() == 1 for one in speech)
        )
        if in_batches and speech and all(map(len, speech)):
            try:
                return self._greedily(speech) if self.greedy else self._beam(speech)
            except TooShortUttError:
                pass
        return [self._decode(one) for one in speech]

    def _beam(self, speech: torch.Tensor | list[torch.Tensor]) -> Any:
        return super().__call__(speech)

    def _greedily(self, waves: list[torch.Tensor]) -> list[Any]:
        return self.search(self.encode(waves))

    @torch.no_grad()
    def encode(self, waves: list[torch.Tensor]) -> list[torch.Tensor]:
        """Encode utterances, as one batch if companions change nothing.

        Args:
            waves: Samples, ``(S,)`` each.

        Returns:
            Encoder frames, ``(T, D)`` each.

        Raises:
            TooShortUttError: An utterance is too short for the encoder.
        """
        # Frames of ESPnet's encoders depend on padding, strongly in 202511.
        together = (
            isinstance(self.asr_model, DistillingMixin)
            and isinstance(self.asr_model.encoder, CIFConformerEncoder)
            and batches_change_nothing(self.asr_model)
        )
        batches = [waves] if together else [[wave] for wave in waves]
        frames: list[torch.Tensor] = []
        for batch in batches:
            for wave in batch:
                refuse_short_audio(self.asr_model.frontend, wave[None])
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
        return frames

    @torch.no_grad()
    def search(self, frames: list[torch.Tensor]) -> list[Any]:
        """Search the tokens of encoder frames, greedily or with ESPnet's beam search.

        Args:
            frames: Result of :meth:`encode`, or parts of it, ``(T, D)`` each.

        Returns:
            For each the n best ``(text, tokens, token_ids, hypothesis)``.
        """
        if not self.greedy:
            return [self._decode_single_sample(hs) for hs in frames]
        hs_pad = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        hlens = torch.tensor([len(hs) for hs in frames])
        model = self.asr_model
        if model.use_transducer_decoder:
            found = transducer_greedy_search(
                model.decoder, model.joint_network, hs_pad, hlens
            )
        elif self.one_pass:
            found = search_with_fallback(
                *(model.nar, model.decoder, hs_pad, hlens),
                *(self.fallback_below, self.maxlenratio),
            )
        else:
            found = greedy_search(model.decoder, hs_pad, hlens, self.maxlenratio)
        return [[self._result(one)] for one in found]

    def _timed(
        self, waves: list[torch.Tensor], results: ResultMaker
    ) -> list[Recognition]:
        """Recognise utterances; those that are too short have an empty result."""
        if not waves:
            return []
        try:
            if not all(map(len, waves)):
                raise TooShortUttError("has no samples", 0, 1)
            frames = self.encode(waves)
        except TooShortUttError as error:
            if len(waves) > 1:
                return [self._timed([wave], results)[0] for wave in waves]
            logging.warning("%s: the hypothesis is empty", error)
            return [Recognition(duration=len(waves[0]) / results.rate)]
        return self.recognitions(
            [results.frames(hs, wave) for hs, wave in zip(frames, waves, strict=True)]
        )

    def recognitions(self, frames: list[Frames]) -> list[Recognition]:
        """Search passages and return their results; needs ``return_times``."""
        assert self.results is not None, "recognitions() needs return_times"
        return [
            self.results.recognition(one, found)
            for one, found in zip(frames, self.hypotheses(frames), strict=True)
        ]

    def hypotheses(self, frames: list[Frames]) -> list[list[Found]]:
        """Search passages; return the n best of each; needs ``return_times``."""
        assert self.results is not None, "hypotheses() needs return_times"
        passages = []
        for nbest in self.search([one.hidden for one in frames]):
            found = [
                Found(
                    ids,
                    tokens,
                    self.results.text(tokens),
                    float(hypothesis.score),
                    hypothesis.states["logp"].numpy() if self.greedy else None,
                    hypothesis.states.get("weights") if self.greedy else None,
                )
                for _, tokens, ids, hypothesis in nbest
            ]
            if self.rescoring is not None:
                found = self.rescoring(found)
            passages.append(found)
        return passages

    def _result(
        self, found: GreedyHypothesis
    ) -> tuple[str | None, list[str], list[int], Any]:
        end = None if self.asr_model.use_transducer_decoder else -1
        ids = found.yseq[1:end]
        token_ids = ids[ids != 0].tolist()
        tokens = self.converter.ids2tokens(token_ids)
        text = None if self.tokenizer is None else self.tokenizer.tokens2text(tokens)
        hypothesis = Hypothesis(
            yseq=found.yseq,
            score=found.score,
            scores={"decoder": found.score},
            states={"logp": found.logp[ids != 0], "weights": found.weights},
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
        """Download a model by its tag and build; without a tag, build from ``kwargs``.

        Args:
            model_tag: A tag of ESPnet's model zoo or of the Hugging Face hub, or a
                packed model.
            kwargs: Arguments of the constructor.
        """
        return cls(**kwargs, **(downloaded(model_tag) if model_tag else {}))


def _greedy_options(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Options of ESPnet's class that ``greedy`` implies.

    Raises:
        UserError: If one of them is given with another value.
    """
    given = inspect.signature(ESPnetSpeech2Text).bind_partial(*args, **kwargs).arguments
    for name, value in _GREEDY.items():
        if given.get(name, value) != value:
            raise UserError(
                f"greedy: {name} is {given[name]!r}, but a greedy search has "
                f"{name}={value!r}; leave out one of the two"
            )
    return {name: _GREEDY[name] for name in ("beam_size", "ctc_weight")}
