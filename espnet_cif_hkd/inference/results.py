"""From encoder frames and hypotheses to :class:`Recognition`.

Each searched passage is a :class:`Frames`; :class:`ResultMaker` does the rest. A caller
with long audio makes its own passages, with times of the complete audio.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.cif import integrate_and_fire
from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.encoder.geometry import feature_rate, frame_times, known_frame_times
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.assemble import assembled, silent_tokens, text_pieces
from espnet_cif_hkd.inference.calibration import Calibration
from espnet_cif_hkd.inference.confidence import confidences
from espnet_cif_hkd.inference.evidence import Evidence, Floats
from espnet_cif_hkd.inference.gaps import flags
from espnet_cif_hkd.inference.quiet import Sound, quiet_borders
from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.spans import token_spans
from espnet_cif_hkd.inference.speech import Samples


@dataclass(frozen=True)
class Frames:
    """The encoder frames of a passage, and what the model computes from each.

    Attributes:
        hidden: Encoder output, ``(T, D)``.
        times: Seconds of the frames.
        duration: Length of the audio in seconds.
        alpha: CIF's weight of each frame, ``(T,)``; None: no CIF.
        ctc: CTC's log-probabilities, ``(T, V)``; None: no CTC.
        sound: The audio of the frames; None: unknown.
    """

    hidden: Tensor
    times: FrameTimes
    duration: float
    alpha: Tensor | None = None
    ctc: Floats | None = None
    sound: Sound | None = None


@dataclass(frozen=True)
class Found:
    """One hypothesis of a search.

    Attributes:
        ids: Tokens without ``<eos>`` and blanks.
        symbols: Their symbols in the token list.
        text: Their text.
        score: Log-probability in the search; None: unknown.
        logp: The decoder's log-probability of each token, ``(U,)``; None: the decoder
            scores the tokens again, as after a beam search, whose scores contain those
            of CTC and the language model.
        weights: The weights that fired, ``(T,)``; None: the search did not return them.
    """

    ids: Sequence[int]
    symbols: Sequence[str]
    text: str
    score: float | None = None
    logp: Floats | None = None
    weights: Tensor | None = None


class ResultMaker:
    """Makes results with the calibration of a model.

    Args:
        model: An ESPnet ASR model in ``eval`` mode.
        tokenizer: ESPnet's; None: symbols are separated by spaces.
        rate: Sampling rate of the audio in Hz.
        calibration: Of the model.

    Raises:
        UserError: The model has neither CIF nor CTC.
    """

    def __init__(
        self, model: Any, tokenizer: Any, rate: int, calibration: Calibration
    ) -> None:
        if not isinstance(model.decoder, CIFDecoder) and model.ctc is None:
            raise UserError(
                "this model has neither 'decoder: cif' nor CTC, so it knows no times: "
                "leave out return_times"
            )
        self.model, self.rate, self.calibration = model, rate, calibration
        self._times = known_frame_times(model, rate)
        self._decode = " ".join if tokenizer is None else tokenizer.tokens2text

    def text(self, symbols: Sequence[str]) -> str:
        """Text of symbols of the token list."""
        return str(self._decode(list(symbols)))

    @torch.no_grad()
    def frames(self, hidden: Tensor, samples: Samples) -> Frames:
        """Prepare the encoder output ``(T, D)`` of a complete utterance ``(S,)``."""
        times = self._times or frame_times(
            self.model, self.rate, len(samples), len(hidden)
        )
        duration = len(samples) / self.rate
        sound = Sound(lambda: samples, self.rate)
        return self.completed(Frames(hidden, times, duration, sound=sound))

    @torch.no_grad()
    def completed(self, frames: Frames) -> Frames:
        """Compute the weights and CTC's probabilities of frames that lack them."""
        hs_pad, hlens = frames.hidden[None], torch.tensor([len(frames.hidden)])
        alpha, ctc = frames.alpha, frames.ctc
        if alpha is None and isinstance(self.model.decoder, CIFDecoder):
            alpha = self.model.decoder.weights(hs_pad, hlens.to(hs_pad.device))[0]
        if ctc is None and self.model.ctc is not None:
            ctc = self.model.ctc.log_softmax(hs_pad)[0].float().cpu().numpy()
        return replace(frames, alpha=alpha, ctc=ctc)

    def recognition(self, frames: Frames, found: Sequence[Found]) -> Recognition:
        """Make the result of a search.

        Args:
            frames: The passage.
            found: Its hypotheses, best first, at least one.
        """
        frames = self._as_searched(frames, found[0])
        each = [self._one(frames, one) for one in found]
        return replace(each[0], nbest=tuple(each) if len(each) > 1 else ())

    @torch.no_grad()
    def _as_searched(self, frames: Frames, best: Found) -> Frames:
        """Frames whose alpha fires the number of tokens that the decoder chose."""
        decoder = self.model.decoder
        if not isinstance(decoder, CIFDecoder) or decoder.length_search is None:
            return frames
        n_frames = len(frames.hidden)
        if n_frames == 0:
            return frames
        alpha = best.weights
        if alpha is None:  # ESPnet's beam search does not return it
            lengths = torch.tensor([n_frames])
            alpha = decoder.search_weights(frames.hidden[None], lengths)[0]
        return replace(frames, alpha=alpha[:n_frames])

    def aligned(self, frames: Frames, known: Found) -> Recognition:
        """Make the result for a known text."""
        return self._one(self._at_known(frames, known.ids), known, is_known=True)

    @torch.no_grad()
    def _at_known(self, frames: Frames, ids: Sequence[int]) -> Frames:
        """Frames whose alpha fires where CTC has the known tokens, if it decides."""
        firing = getattr(self.model.decoder, "ctc_firing", None)
        if firing is None or not len(ids) or not len(frames.hidden):
            return frames
        hs_pad, device = frames.hidden[None], frames.hidden.device
        hlens = torch.tensor([len(frames.hidden)], device=device)
        alpha = self.model.decoder.predictor(hs_pad, hlens)
        ys_pad, ys_lens = torch.tensor([ids]), torch.tensor([len(ids)])
        ys_pad, ys_lens = ys_pad.to(device), ys_lens.to(device)
        alpha = firing.known_weights(alpha, hs_pad, hlens, ys_pad, ys_lens)
        return replace(frames, alpha=alpha[0])

    def _one(self, frames: Frames, one: Found, is_known: bool = False) -> Recognition:
        if not len(frames.hidden) or not len(one.ids):
            return Recognition(duration=frames.duration, score=one.score)
        evidence = self.evidence(frames, one.ids, one.logp, is_known)
        pieces = text_pieces(one.symbols, one.text, self.text)
        silent = silent_tokens(pieces, one.symbols)
        known = self.calibration
        spans = token_spans(evidence, silent, known.timing, frames.duration)
        if frames.sound is not None:
            spans = quiet_borders(spans, pieces, frames.sound, frames.times.stride)
        sure = confidences(evidence, known.weights)
        warnings = flags(evidence, spans, known.gaps, known.limit)
        return assembled(
            one.ids,
            one.symbols,
            pieces,
            spans,
            frames.duration,
            sure,
            one.score,
            warnings,
        )

    def evidence(
        self,
        frames: Frames,
        ids: Sequence[int],
        logp: Floats | None = None,
        is_known: bool = False,
    ) -> Evidence:
        """What the model knows about the tokens of a hypothesis.

        Args:
            frames: The passage.
            ids: Tokens without ``<eos>``, at least one.
            logp: As in :class:`Found`.
            is_known: Scale alpha to the number of tokens, as in training.
        """
        n_frames, alpha = len(frames.hidden), None
        if frames.alpha is not None:
            alpha = frames.alpha.double().cpu().numpy()
            if is_known:
                alpha = alpha * ((len(ids) + 1) / max(float(alpha.sum()), 1e-9))
        if logp is None:
            logp = self._scored(frames, ids, is_known)
        times, ctc = frames.times, frames.ctc
        return Evidence(ids, n_frames, times.offset, times.stride, alpha, ctc, logp)

    @torch.no_grad()
    def _scored(
        self, frames: Frames, ids: Sequence[int], is_known: bool
    ) -> Floats | None:
        """The decoder's log-probabilities of known tokens, ``(U,)``."""
        device, decoder = frames.hidden.device, self.model.decoder
        hs_pad = frames.hidden[None]
        hlens = torch.tensor([len(frames.hidden)], device=device)
        lengths = torch.tensor([len(ids) + 1], device=device)
        ys_in = torch.tensor([[self.model.sos, *ids]], device=device)
        if frames.alpha is not None:
            fired = integrate_and_fire(
                hs_pad,
                frames.alpha[None],
                hlens,
                lengths if is_known else None,
                decoder.tail_threshold,
            )
            near = decoder.near_frames(hs_pad, hlens, fired)
            logits = decoder.decode_free(fired, ys_in[:, :-1], near)
        elif decoder is not None and not self.model.use_transducer_decoder:
            logits, _ = decoder(hs_pad, hlens, ys_in, lengths)
        else:
            return None
        every = logits[0, : len(ids)].float().log_softmax(dim=-1)  # (U, V)
        return every.gather(1, ys_in[0, 1:, None])[:, 0].cpu().numpy()  # type: ignore[no-any-return]


def sampling_rate(model: Any, train_args: Any) -> int:
    """Sampling rate in Hz of the audio that a model reads.

    It is the frontend's, else ``fs`` of ``frontend_conf`` or ``preprocessor_conf``.

    Args:
        model: An ESPnet ASR model.
        train_args: Its configuration.

    Raises:
        UserError: It is unknown, or the model reads features.
    """
    from humanfriendly import InvalidSize, parse_size

    if model.frontend is None:
        raise UserError(
            "this model reads features from files: times in seconds need a model with "
            "a frontend"
        )
    rate = feature_rate(model.frontend)
    for name in ("frontend_conf", "preprocessor_conf"):
        if rate is None:
            given = (getattr(train_args, name, None) or {}).get("fs")
            try:
                rate = None if given is None else int(parse_size(str(given)))
            except InvalidSize:
                raise UserError(
                    f"{name}: fs {given!r} in config.yaml is no sampling rate: write "
                    "16k or 16000"
                ) from None
    if not rate:
        raise UserError(
            "the model's sampling rate is unknown: write 'fs: 16000' (its rate) under "
            "frontend_conf in its config.yaml"
        )
    return rate
