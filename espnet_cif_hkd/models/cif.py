"""The CIF recogniser as an ESPnet model: encoder, CTC, CIF decoder, distillation."""

from typing import Any

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.asr.specaug.abs_specaug import AbsSpecAug
from espnet2.layers.abs_normalize import AbsNormalize
from espnet2.torch_utils.device_funcs import force_gatherable

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.decoder.cif_nar import CIFNARDecoder
from espnet_cif_hkd.decoder.cif_whisper import CIFWhisperDecoder
from espnet_cif_hkd.decoder.ctc_firing import CTCFiring
from espnet_cif_hkd.distill.taps import MODEL_TAPS, TextDecoder, TokenLoss
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.ctc_guide import ctc_spikes
from espnet_cif_hkd.losses.token import shift_targets
from espnet_cif_hkd.models.checkpoint import (
    VERSION_KEY,
    load_checked,
    token_list_digest,
    version_tensor,
)
from espnet_cif_hkd.models.ctc_guide import build_guide, mean_drift
from espnet_cif_hkd.models.distilling import DistillingMixin
from espnet_cif_hkd.models.free_stats import free_stats
from espnet_cif_hkd.models.nar import build_one_pass, one_pass_losses, score_output
from espnet_cif_hkd.models.short_audio import refuse_short_audio
from espnet_cif_hkd.models.streaming import report_streaming
from espnet_cif_hkd.search.lengths import build_length_search


class CIFASRModel(DistillingMixin, ESPnetASRModel):  # type: ignore[misc]
    """CTC and CIF on one encoder, with an optional teacher while training.

    The loss is the paper's: every term is a sum over the batch, divided by the number
    N of target tokens, ``<eos>`` included; the terms are added, not interpolated. N is
    also returned as the weight of the batch, so that ESPnet's trainer normalises over
    all processes.

    Args:
        vocab_size: V.
        token_list: Names of the V tokens.
        frontend, specaug, normalize, preencoder, encoder, postencoder, ctc: As in
            ESPnet.
        decoder: Must be :class:`CIFDecoder` or :class:`CIFNARDecoder`.
        joint_network: Must be None.
        ctc_weight: Weight of CTC on the encoder's output, ``0 <= w < 1``; added to the
            other losses, while ESPnet interpolates CTC and attention.
        quantity_weight: Weight of ``|sum of alpha - tokens|``, ``<eos>`` counted.
        ctc_guide_weight: Weight of a loss that makes tokens fire where CTC's forced
            alignment has them; 0: none. Needs CTC.
        ctc_guide_kind: ``sum``: :func:`ctc_guide_loss` keeps the running sum of alpha
            near its token at CTC's spike. ``spikes``: :func:`ctc_spike_loss` makes
            alpha 1 at the spikes and 0 between them.
        ctc_guide_slack: Of ``sum``: the distance in tokens that it allows; 0.5: the sum
            is inside the token at its spike.
        ctc_guide_scaling: How training scales alpha to the number of tokens. By one
            factor: ``utterance``; ``segments``: between CTC's spikes, so that the
            vector of a token is made of its own frames.
        ctc_guide_firing: Where tokens fire in recognition, also of validation's
            ``cer_free``: where the sum of ``alpha`` passes an integer, or at the
            ``spikes`` of CTC's best path, with alpha scaled between them.
        ctc_guide_threshold: Of firing at ``spikes``: a frame has a token if all tokens
            together have more than this probability; null: if the blank is not the
            likeliest label, which misses tokens where many are possible.
        ctc_guide_start: Number of optimizer updates before the loss and the segments
            take part, because CTC has no useful alignment in the beginning.
        length_conf: Options of :class:`LengthSearch`, ``slack`` and ``bonus``: in
            recognition the decoder chooses the number of tokens among those near what
            fires; null: it does not choose. Can be changed after the training.
        criterion: Name of a criterion such as ``hkd``; null: no distillation. Excludes
            ``criteria``.
        criterion_conf: Options of the criterion; ignored without one.
        criteria: Several criteria: a mapping from names of your choice to ``type``, the
            name of a criterion, and its options. A loss is logged as ``NAME.loss``.
        encoder_lr_factor: Factor of the encoder's learning rate, for a pre-trained
            encoder.
        freeze_encoder_updates: Number of updates for which the encoder is frozen, with
            its dropout and its batch statistics.
        decoder_lr_factor: Factor of the learning rate of a pre-trained decoder, without
            its predictor.
        nar_conf: Options of a one-pass decoder beside ``decoder: cif``, on the same
            encoder and firing: those of ``decoder: cif_nar`` without ``predictor_conf``
            and ``eos_slack``; null: none. Its parameters are ``nar.*``.
        nar_weight: Weight of the cross-entropy of the one-pass decoder.
        nar_distill_weight: Weight of the divergence of its probabilities from those of
            the autoregressive decoder; 0: none.
        ignore_id: Token id that pads transcripts.
        lsm_weight: Label smoothing of the decoder's cross-entropy.
        report_cer: Whether validation computes character error rates.
        report_wer: Whether validation computes the word error rate.
        sym_space: The token that means a space.
        sym_blank: The blank token of CTC.
        sym_sos: The token that begins a sentence in the decoder's input.
        sym_eos: The token that ends a sentence; it has a fired vector as any other.
        autocast_frontend: Whether the frontend uses mixed precision, too, as in ESPnet.
        extract_feats_in_collect_stats: Whether stage 10 computes statistics of
            features, as in ESPnet.

    Raises:
        UserError: If an option does not fit a CIF model.

    Source: Han et al., arXiv 2301.13003 (losses and their weights).
    """

    decoder: CIFDecoder

    def __init__(
        self,
        vocab_size: int,
        token_list: tuple[str, ...] | list[str],
        frontend: AbsFrontend | None,
        specaug: AbsSpecAug | None,
        normalize: AbsNormalize | None,
        preencoder: AbsPreEncoder | None,
        encoder: AbsEncoder | None,
        postencoder: AbsPostEncoder | None,
        decoder: AbsDecoder | None,
        ctc: CTC,
        joint_network: torch.nn.Module | None,
        ctc_weight: float = 0.5,
        quantity_weight: float = 1.0,
        ctc_guide_weight: float = 0.0,
        ctc_guide_kind: str = "sum",
        ctc_guide_slack: float = 0.5,
        ctc_guide_scaling: str = "utterance",
        ctc_guide_firing: str = "alpha",
        ctc_guide_threshold: float | None = None,
        ctc_guide_start: int = 0,
        length_conf: dict[str, Any] | None = None,
        criterion: str | None = None,
        criterion_conf: dict[str, Any] | None = None,
        criteria: dict[str, Any] | None = None,
        encoder_lr_factor: float = 1.0,
        freeze_encoder_updates: int = 0,
        decoder_lr_factor: float = 1.0,
        nar_conf: dict[str, Any] | None = None,
        nar_weight: float = 1.0,
        nar_distill_weight: float = 0.0,
        ignore_id: int = -1,
        lsm_weight: float = 0.1,
        report_cer: bool = True,
        report_wer: bool = True,
        sym_space: str = "<space>",
        sym_blank: str = "<blank>",
        sym_sos: str = "<sos/eos>",
        sym_eos: str = "<sos/eos>",
        autocast_frontend: bool = False,
        extract_feats_in_collect_stats: bool = True,
    ) -> None:
        if not isinstance(decoder, CIFDecoder):
            raise UserError(
                f"model: cif needs decoder: cif, cif_nar or cif_whisper, got "
                f"{type(decoder).__name__}; set 'decoder: cif' in the training "
                "configuration"
            )
        if joint_network is not None:
            raise UserError("model: cif has no transducer; remove joint_net_conf")
        if not 0.0 <= ctc_weight < 1.0:
            raise UserError(
                f"model_conf: ctc_weight {ctc_weight} must be at least 0 and less than "
                "1: it is added to the CIF loss (the paper's 0.5), and ESPnet drops "
                "the decoder at 1"
            )
        guide = build_guide(
            ctc_weight,
            ctc_guide_weight,
            ctc_guide_kind,
            ctc_guide_slack,
            ctc_guide_scaling,
            ctc_guide_firing,
            ctc_guide_threshold,
            ctc_guide_start,
        )
        super().__init__(
            vocab_size=vocab_size,
            token_list=list(token_list),
            frontend=frontend,
            specaug=specaug,
            normalize=normalize,
            preencoder=preencoder,
            encoder=encoder,
            postencoder=postencoder,
            decoder=decoder,
            ctc=ctc,
            joint_network=None,
            ctc_weight=ctc_weight,
            ignore_id=ignore_id,
            lsm_weight=lsm_weight,
            length_normalized_loss=False,  # forward below normalises by itself
            report_cer=report_cer,
            report_wer=report_wer,
            sym_space=sym_space,
            sym_blank=sym_blank,
            sym_sos=sym_sos,
            sym_eos=sym_eos,
            autocast_frontend=autocast_frontend,
            extract_feats_in_collect_stats=extract_feats_in_collect_stats,
        )
        report_streaming(self)
        self.decoder.sos, self.decoder.eos = self.sos, self.eos
        self.nar, self.nar_options = build_one_pass(
            nar_conf, nar_weight, nar_distill_weight, vocab_size, self.decoder
        )
        self.quantity_weight = quantity_weight
        self.lsm_weight = lsm_weight
        self.ctc_guide = guide
        if guide.firing == "spikes":
            self.decoder.ctc_firing = CTCFiring(
                self.ctc, self.blank_id, guide.threshold
            )
        self.decoder.length_search = build_length_search(length_conf)
        self.register_buffer("token_list_digest", token_list_digest(self.token_list))
        self.register_buffer(VERSION_KEY, version_tensor())

        size = self.decoder.output_layer.in_features
        sizes = dict.fromkeys(MODEL_TAPS["cif"] - {"speech"}, size)
        sizes |= dict.fromkeys(("hs_pad", "fired"), self.decoder.fired_size)
        sizes["logits"] = vocab_size
        # It reads no tokens, or its vectors are not those of tokens.
        if isinstance(decoder, CIFNARDecoder | CIFWhisperDecoder):
            sizes.pop("decoder")
        token_loss = TokenLoss(1.0, lsm_weight)
        self.add_criteria("cif", sizes, criterion, criterion_conf, criteria, token_loss)
        if self.ctc_guide.schedule.is_scheduled:
            self.count_updates()
        self.start_encoder(encoder_lr_factor, freeze_encoder_updates)
        self.scale_decoder_updates(self.decoder.language_parameters, decoder_lr_factor)

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Compute the loss per target token.

        Args:
            speech: Samples ``(B, S)`` or features ``(B, F, C)``.
            speech_lengths: Valid samples or frames, ``(B,)``.
            text: Token ids, ``(B, U)`` int64, padded with -1, without ``<eos>``.
            text_lengths: Tokens, ``(B,)``.
            kwargs: ``utt_id``, names of the utterances, for criteria.

        Returns:
            Loss per token, statistics for the log, and the weight N = tokens with
            ``<eos>``.
        """
        text = torch.where(text == -1, self.ignore_id, text)
        wanted = self.wanted_taps()
        with self.tapped_encoder(wanted) as layers:
            hs_pad, hlens = self.encode(speech, speech_lengths)
        if isinstance(hs_pad, tuple):  # intermediate outputs are not used
            hs_pad = hs_pad[0]

        ys_in_pad, ys_out_pad = shift_targets(
            text, text_lengths, self.sos, self.eos, self.ignore_id
        )
        ys_lens = text_lengths + 1  # with <eos>
        n_tokens = ys_lens.sum()
        spikes = None
        if self.ctc is not None and self._is_guided():
            logp = self.ctc.log_softmax(hs_pad.detach()).detach()
            spikes = ctc_spikes(logp, hlens, text, text_lengths, self.blank_id)
        ends = self.ctc_guide.segment_ends(spikes)
        output = self.decoder.forward_with_states(
            hs_pad, hlens, ys_in_pad, ys_lens, ends
        )

        scores, n_scored = score_output(
            output, ys_out_pad, self.ignore_id, self.lsm_weight
        )
        loss_att = scores.loss / n_tokens
        loss_quantity = (output.cif.quantity - ys_lens).abs().sum() / n_tokens
        loss = loss_att + self.quantity_weight * loss_quantity
        stats: dict[str, Any] = {
            "loss_att": loss_att.detach(),
            "loss_quantity": loss_quantity.detach(),
            "nll": scores.nll / n_scored,
            "acc": scores.n_correct / n_scored,
        }
        if self.nar is not None:
            near = self.nar.near_frames(hs_pad, hlens, output.cif)
            loss_nar, stats_nar = one_pass_losses(
                self.nar.read(output.cif, near, ys_in_pad),
                output.logits,
                ys_out_pad,
                self.ignore_id,
                self.lsm_weight,
                self.nar_options,
            )
            loss = loss + loss_nar
            stats.update(stats_nar)
        if self.ctc is not None:
            frames, tokens = hlens, text_lengths
            if self.ctc.ctc_type == "builtin":  # loops over them on the host
                frames, tokens = torch.stack([hlens.to(tokens), tokens]).cpu()
            loss_ctc, cer_ctc = self._calc_ctc_loss(hs_pad, frames, text, tokens)
            # ESPnet's is a mean over the batch; the paper's is a sum over tokens.
            loss_ctc = loss_ctc.float() * text.size(0) / n_tokens
            loss = loss + self.ctc_weight * loss_ctc
            stats.update(loss_ctc=loss_ctc.detach(), cer_ctc=cer_ctc)
        if spikes is not None:
            stats["drift"] = mean_drift(output.cif, spikes)
            if self.ctc_guide.weight:
                loss_guide = self.ctc_guide.loss(output.cif, spikes) / n_tokens
                loss = loss + self.ctc_guide.weight * loss_guide.float()
                stats["loss_ctc_guide"] = loss_guide.detach().float()
        if self.has_criteria:
            taps = self.make_taps(
                wanted,
                layers,
                kwargs.get("utt_id"),
                hs_pad=hs_pad,
                hlens=hlens,
                ys_pad=text,
                ys_pad_lens=text_lengths,
                speech=speech,
                speech_lengths=speech_lengths,
                fired=output.cif,
                decoder=TextDecoder(
                    self.decoder.embed.weight.detach(),
                    self.sos,
                    self.eos,
                    self.decoder.decode,
                ),
                logits=output.logits,
                scored=output.scored,
                states={
                    "output": output.states,
                    "joined": output.states,
                    "transformer": output.hidden,
                },
            )
            loss = self.add_distillation(loss, stats, taps, n_tokens)

        stats["loss"] = loss.detach()
        if not self.training:
            if self.error_calculator is not None:
                cer, wer = self.error_calculator(scores.likeliest.cpu(), text.cpu())
                stats.update(cer=cer, wer=wer)
            stats.update(free_stats(self, hs_pad, hlens, ys_in_pad, ys_lens, text))
        return force_gatherable((loss, stats, n_tokens), loss.device)

    def _is_guided(self) -> bool:
        """Whether this step uses CTC's spikes; validation always does."""
        guide = self.ctc_guide
        if self.training and not guide.needs_spikes:
            return False
        return self.scheduled_factor(guide.schedule) > 0

    def encode(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run frontend and encoder, as in ESPnet.

        Args:
            speech: Samples ``(B, S)`` or features ``(B, F, C)``.
            speech_lengths: Valid samples or frames, ``(B,)``.

        Returns:
            Encoder frames, ``(B, T, D)``, and the number of valid ones, ``(B,)``.

        Raises:
            TooShortUttError: Also if there are fewer samples than half a window of the
                frontend.
        """
        refuse_short_audio(self.frontend, speech)
        return super().encode(speech, speech_lengths)  # type: ignore[no-any-return]

    def load_state_dict(  # type: ignore[override]
        self, state_dict: dict[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load parameters; those of inference are required even with ``strict=False``.

        Raises:
            UserError: If keys are missing or the token list is another one.
        """
        return load_checked(
            super().load_state_dict, self, state_dict, strict=strict, assign=assign
        )
