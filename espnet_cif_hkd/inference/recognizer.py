"""A recogniser for a trained model: samples in, text with times and confidences out."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import yaml

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend
from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.inference.by_length import in_batches
from espnet_cif_hkd.inference.calibration import warn_of_search
from espnet_cif_hkd.inference.curve import Curve, curve_of
from espnet_cif_hkd.inference.growing_stream import stream_options
from espnet_cif_hkd.inference.known_text import known_tokens
from espnet_cif_hkd.inference.long_audio import LongAudio, long_options
from espnet_cif_hkd.inference.model_files import model_files, recipe_folder
from espnet_cif_hkd.inference.nbest import WEIGHT
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.rescoring import Rescoring, scorer_of
from espnet_cif_hkd.inference.results import Found, Frames, ResultMaker
from espnet_cif_hkd.inference.speech import Samples
from espnet_cif_hkd.inference.speech2text import Speech2Text
from espnet_cif_hkd.inference.stream import RecognitionStream
from espnet_cif_hkd.inference.windows import Read
from espnet_cif_hkd.plugin.compat import TooShortUttError
from espnet_cif_hkd.plugin.registration import CIF_DECODERS

_CTC_WEIGHT = 0.3
_GREEDY_DECODERS = (*CIF_DECODERS, "transducer")
_LANGUAGE_MODEL = ("lm_train_config", "lm_file")
# Seconds. Attention between all frames takes 9 GB for them with frames of 20 ms.
_LONGEST_KNOWN = 180


class Recognizer:
    """A trained model with its search, calibration and sampling rate.

    Args:
        model: The folder of an experiment (with ``config.yaml``), a checkpoint in it, a
            packed model (zip), or a tag of ESPnet's model zoo or of the Hugging Face
            hub.
        greedy: Choose the most likely token at each step; a model with a decoder that
            is neither CIF's nor a transducer's uses the beam search.
        beam_size: Of the beam search.
        ctc_weight: Of the beam search; None: 0.3, or 0 for a model without CTC.
        device: ``cpu``, ``cuda`` …
        batch_size: Largest number of utterances that are processed together.
        rescore_lm: A causal language model of Hugging Face that chooses among the
            ``beam_size`` hypotheses of the beam search: a folder,
            ``pkg://DISTRIBUTION/FOLDER``, or ``NAME@REVISION`` of the hub.
        rescore_weight: Of its log-probabilities; ``espnet-cif rescore`` fits weight and
            bonus.
        rescore_bonus: What each token adds.
        options: Further arguments of :class:`Speech2Text`, such as ``lm_weight``,
            ``nbest``. A language model in the package is used by the beam search.

    Attributes:
        speech2text: Encoder and search.
        results: Makes results from encoder frames.
        sampling_rate: Of the audio, in Hz.
        tokens: The token list.
        search: ``greedy``, ``lm``: whether a language model takes part, and
            ``one_pass`` and ``fallback_below`` if they are used.

    Raises:
        UserError: It is no model, it knows no times, or its sampling rate is unknown.

    Example:
        >>> recognizer = Recognizer("exp/asr_x")
        >>> for word in recognizer.recognise(samples).words:
        ...     print(word.start, word.end, word.text)
    """

    def __init__(
        self,
        model: str | Path,
        *,
        greedy: bool = True,
        beam_size: int = 5,
        ctc_weight: float | None = None,
        device: str = "cpu",
        batch_size: int = 16,
        rescore_lm: str | None = None,
        rescore_weight: float = WEIGHT,
        rescore_bonus: float = 0.0,
        **options: Any,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        files = {
            name: str(Path(file).resolve()) for name, file in model_files(model).items()
        }
        config = _configuration(files["asr_train_config"])
        if config.get("decoder") not in _GREEDY_DECODERS:
            greedy = False
        if greedy:
            files = {k: v for k, v in files.items() if k not in _LANGUAGE_MODEL}
        else:
            if ctc_weight is None:
                has_ctc = (config.get("model_conf") or {}).get("ctc_weight", 0.5) > 0
                ctc_weight = _CTC_WEIGHT if has_ctc else 0.0
            options |= {"beam_size": beam_size, "ctc_weight": ctc_weight}
        rescoring = None
        if rescore_lm is not None:
            if greedy or beam_size < 2:
                raise UserError(
                    "rescore_lm chooses among the hypotheses of a beam search: set "
                    "greedy=False and a beam_size of 2 or more, such as 10"
                )
            keep = int(options.get("nbest", 1))
            options["nbest"] = max(beam_size, keep)
            scorer = scorer_of(rescore_lm, device)
            rescoring = Rescoring(scorer, rescore_weight, rescore_bonus, keep)
            scorer.open()
        with recipe_folder(files["asr_train_config"]):
            self.speech2text = Speech2Text(
                **{**files, **options}, greedy=greedy, return_times=True, device=device
            )
            assert self.speech2text.results is not None
            self.results: ResultMaker = self.speech2text.results
            # Files with paths in the recipe that are opened when they are used.
            self.results.text([])
            frontend = self.speech2text.asr_model.frontend
            if isinstance(frontend, SpeechTeacherFrontend):
                _ = frontend.fewest_samples
            self._made_with = _digest(
                {
                    **files,
                    **options,
                    "greedy": greedy,
                    "rescoring": rescore_lm
                    and (rescore_lm, rescore_weight, rescore_bonus),
                    "calibration": self.results.calibration,
                }
            )
        has_lm = (files | options).get("lm_train_config") is not None
        self.search = {"greedy": greedy, "lm": has_lm}
        used = {name: options.get(name) for name in ("one_pass", "fallback_below")}
        self.search |= {name: value for name, value in used.items() if value}
        warn_of_search(self.results.calibration, self.search)
        self.model_file = Path(files["asr_model_file"])
        self.batch_size = batch_size
        self.sampling_rate = self.results.rate
        self.tokens = tuple(self.speech2text.asr_model.token_list)
        if rescoring is not None:
            rescoring.scorer.settle_case(self.tokens)
            self.speech2text.rescoring = rescoring

    @overload
    def recognise(self, samples: Samples) -> Recognition: ...

    @overload
    def recognise(self, samples: Sequence[Samples]) -> list[Recognition]: ...

    def recognise(
        self, samples: Samples | Sequence[Samples]
    ) -> Recognition | list[Recognition]:
        """Recognise one utterance or a list of utterances.

        Args:
            samples: Samples ``(S,)`` at :attr:`sampling_rate`, float in [-1, 1] or
                int16, or a list of these.

        Returns:
            A result, or a list of results in the same order.

        Raises:
            UserError: The type, shape or a value of an utterance is wrong; the message
                has its index in the list.
        """
        if not isinstance(samples, list | tuple):
            return self.speech2text(samples)  # type: ignore[no-any-return]
        waves = [
            self.speech2text._checked(one, f"samples[{index}]")
            for index, one in enumerate(samples)
        ]
        return in_batches(waves, self.batch_size, self.speech2text._decode_list)

    def frames(self, samples: Samples) -> Frames | None:
        """Encode one utterance; None if it is too short for the encoder."""
        wave = self.speech2text._checked(samples, "samples")
        try:
            if not len(wave):
                return None
            [hidden] = self.speech2text.encode([wave])
        except TooShortUttError:
            return None
        return self.results.frames(hidden, wave)

    def recognitions(self, frames: list[Frames]) -> list[Recognition]:
        """Search passages of encoder frames and return their results."""
        return self.speech2text.recognitions(frames)

    def long(
        self,
        read: Read,
        duration: float,
        *,
        state: str | Path | None = None,
        key: str = "",
        **options: float,
    ) -> Iterator[Recognition]:
        """Recognise long audio with the memory of one window.

        :func:`espnet_cif_hkd.inference.joining.joined` makes one result of the
        passages. Audio that is not longer than a window is one passage, and its text is
        that of :meth:`recognise`.

        Args:
            read: Returns the samples between two times in seconds, at
                :attr:`sampling_rate`, as ``Audio.read`` of ``inference.media``.
            duration: Length of the audio in seconds.
            state: File for the state, to go on after an interruption.
            key: What distinguishes this audio from others, for the state.
            options: Of :class:`espnet_cif_hkd.inference.long_audio.LongOptions`.

        Yields:
            The result of each passage, with times of the complete audio; an empty one
            after a window without a passage.

        Raises:
            UserError: The model knows no pauses, an option does not fit, or the state
                is of another audio, model, search or calibration.
        """
        long = LongAudio(self.speech2text, long_options(options))
        yield from long.recognise(read, duration, state, f"{self._made_with} {key}")

    def stream(self, **options: Any) -> RecognitionStream:
        """Open a stream: audio in pieces, results that only grow.

        The search is greedy unless ``beam_size`` is given; it has neither a language
        model nor CTC, and no one-pass decoder, which needs the complete audio.

        Args:
            options: Of :class:`espnet_cif_hkd.inference.growing_stream.StreamOptions`.

        Raises:
            UserError: A part of the model needs the complete audio, or an option is
                wrong.
        """
        return RecognitionStream(
            self.speech2text.asr_model,
            self.results,
            list(self.tokens),
            stream_options(options),
        )

    def align(self, samples: Samples, text: str) -> Recognition:
        """Return the times of a known text.

        Args:
            samples: As for :meth:`recognise`, one utterance of at most 3 minutes.
            text: What is said. Its case may differ from that of the model's tokens.
                ``<unk>`` stands for what the tokens cannot spell.

        Returns:
            The result for these tokens; confidences are those of the text.

        Raises:
            UserError: The model has no token for a symbol of the text, or the audio is
                too long, or too short for the text.
        """
        wave = self.speech2text._checked(samples, "samples")
        symbols = known_tokens(text, self._tokenizer.text2tokens, self.tokens)
        duration = len(wave) / self.sampling_rate
        if not symbols:
            return Recognition(duration=duration)
        if duration > _LONGEST_KNOWN:
            raise UserError(
                f"{duration:.0f} s of audio are too long to align, at most "
                f"{_LONGEST_KNOWN} are possible: divide audio and text at pauses "
                "(espnet-cif transcribe -f kaldi finds them)"
            )
        frames = self.frames(wave)
        if frames is None:
            raise UserError(
                f"{len(wave)} samples are too short for the text {text!r}: check "
                "that audio and text belong together"
            )
        ids = [int(one) for one in self.speech2text.converter.tokens2ids(symbols)]
        known = Found(ids, symbols, self.results.text(symbols))
        return self.results.aligned(frames, known)

    def alphas(self, samples: Samples) -> Curve | None:
        """Return CIF's weights and firings for a picture of one utterance.

        Args:
            samples: As for :meth:`recognise`, one utterance.

        Returns:
            The curve; None for another decoder, or if the audio is too short.
        """
        decoder = self.speech2text.asr_model.decoder
        frames = self.frames(samples) if isinstance(decoder, CIFDecoder) else None
        return None if frames is None else curve_of(decoder, frames)

    @property
    def _tokenizer(self) -> Any:
        if self.speech2text.tokenizer is None:
            raise UserError("align: the model's config.yaml names no token_type")
        return self.speech2text.tokenizer


def _digest(settings: Mapping[str, Any]) -> str:
    """A short digest of settings; of files their paths, sizes and times."""
    lines = []
    for name, value in sorted(settings.items()):
        line = f"{name} {value!r}"
        if isinstance(value, str | Path) and Path(value).is_file():
            found = Path(value).stat()
            line += f" {found.st_size} {found.st_mtime_ns}"
        lines.append(line)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _configuration(path: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error, 200)
        raise UserError(f"{path} cannot be read ({reason})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no configuration of a training")
    return found
