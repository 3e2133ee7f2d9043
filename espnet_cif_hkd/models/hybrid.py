"""ESPnet's CTC/attention recogniser with criteria, and losses per target token."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.decoder.linear_decoder import LinearDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.asr.specaug.abs_specaug import AbsSpecAug
from espnet2.layers.abs_normalize import AbsNormalize
from espnet2.torch_utils.device_funcs import force_gatherable

from espnet_cif_hkd.decoder.cif_decoder import CIFDecoder
from espnet_cif_hkd.distill.taps import Taps, TokenLoss
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.distilling import DistillingMixin
from espnet_cif_hkd.models.streaming import report_streaming

LOSS_NORMALIZERS = ("espnet", "token")


@dataclass
class _Step:
    """Intermediate results of one forward pass of ESPnet's model."""

    encoded: tuple[Any, torch.Tensor] | None = None
    states: dict[str, torch.Tensor] = field(default_factory=dict)
    logits: torch.Tensor | None = None


class HybridASRModel(DistillingMixin, ESPnetASRModel):  # type: ignore[misc]
    """ESPnet's CTC/attention model with distillation criteria in training.

    Without a criterion and with ``loss_normalizer: espnet`` it trains exactly as
    ESPnet's own model. The parameters have ESPnet's names, so ESPnet's checkpoints load
    with ``--init_param``.

    Taps: ``hs_pad``, ``layer:N``, ``logits``, and, if the decoder is one of ESPnet's
    transformers, ``states:output``, also called ``states:transformer``.

    Args:
        vocab_size: V.
        token_list: Names of the V tokens.
        frontend, specaug, normalize, preencoder, encoder, postencoder, decoder, ctc: As
            in ESPnet.
        joint_network: Must be None.
        aux_ctc: As in ESPnet.
        ctc_weight: Weight of CTC; the attention loss has ``1 - ctc_weight``.
        interctc_weight: Share of the intermediate CTC losses in CTC, as in ESPnet.
        loss_normalizer: ``espnet`` divides sums over tokens as ESPnet does, by the
            number of utterances (``length_normalized_loss: true``: the attention loss
            by the number of tokens); ``token`` divides all losses by the number N of
            target tokens, ``<eos>`` included, and N is the weight of the batch in
            ESPnet's trainer, as in ``model: cif``. Losses of criteria have the divisor
            of the attention loss.
        criterion: Name of a criterion such as ``hkd``; null: no distillation. Excludes
            ``criteria``.
        criterion_conf: Options of the criterion; ignored without one.
        criteria: Several criteria: a mapping from names of your choice to ``type``, the
            name of a criterion, and its options. A loss is logged as ``NAME.loss``.
        encoder_lr_factor: Factor of the encoder's learning rate, for a pre-trained
            encoder.
        freeze_encoder_updates: Number of updates for which the encoder is frozen, with
            its dropout and its batch statistics.
        ignore_id: Token id that pads transcripts.
        lsm_weight: Label smoothing of the attention loss.
        length_normalized_loss: As in ESPnet; ``loss_normalizer: token`` ignores it.
        report_cer: Whether validation computes character error rates.
        report_wer: Whether validation computes the word error rate.
        sym_space: The token that means a space.
        sym_blank: The blank token of CTC.
        sym_sos: The token that begins a sentence in the decoder's input.
        sym_eos: The token that ends a sentence.
        autocast_frontend: Whether the frontend uses mixed precision, too, as in ESPnet.
        extract_feats_in_collect_stats: Whether stage 10 computes statistics of
            features, as in ESPnet.

    Raises:
        UserError: If an option does not fit, or a criterion wants a tap that the model
            lacks.
    """

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
        aux_ctc: dict[str, Any] | None = None,
        ctc_weight: float = 0.5,
        interctc_weight: float = 0.0,
        loss_normalizer: str = "espnet",
        criterion: str | None = None,
        criterion_conf: dict[str, Any] | None = None,
        criteria: dict[str, Any] | None = None,
        encoder_lr_factor: float = 1.0,
        freeze_encoder_updates: int = 0,
        ignore_id: int = -1,
        lsm_weight: float = 0.0,
        length_normalized_loss: bool = False,
        report_cer: bool = True,
        report_wer: bool = True,
        sym_space: str = "<space>",
        sym_blank: str = "<blank>",
        sym_sos: str = "<sos/eos>",
        sym_eos: str = "<sos/eos>",
        autocast_frontend: bool = False,
        extract_feats_in_collect_stats: bool = True,
    ) -> None:
        if joint_network is not None or isinstance(decoder, LinearDecoder | CIFDecoder):
            kind = "a transducer" if joint_network else type(decoder).__name__
            raise UserError(
                f"model: hybrid needs an attention decoder, got {kind}; set 'decoder: "
                "transformer', or 'model: cif' with 'decoder: cif'"
            )
        if loss_normalizer not in LOSS_NORMALIZERS:
            raise UserError(
                f"model_conf: loss_normalizer is {loss_normalizer!r}; use "
                f"{' or '.join(LOSS_NORMALIZERS)}"
            )
        per_token = loss_normalizer == "token"
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
            aux_ctc=aux_ctc,
            ctc_weight=ctc_weight,
            interctc_weight=interctc_weight,
            ignore_id=ignore_id,
            lsm_weight=lsm_weight,
            # For "token", ESPnet's losses must all be divided by the utterances first.
            length_normalized_loss=length_normalized_loss and not per_token,
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
        self.per_token = per_token
        self.length_normalized_loss = length_normalized_loss
        self._step: _Step | None = None
        sizes: dict[str, int] = {}
        if encoder is not None:
            last = encoder if postencoder is None else postencoder
            sizes["hs_pad"] = last.output_size()
        if self.decoder is not None:  # ESPnet drops it at ctc_weight 1
            sizes["logits"] = vocab_size
            output_layer = getattr(self.decoder, "output_layer", None)
            if isinstance(output_layer, torch.nn.Linear):
                for name in ("states:output", "states:transformer"):
                    sizes[name] = output_layer.in_features
        token_loss = TokenLoss(1 - ctc_weight, lsm_weight)
        self.add_criteria(
            "hybrid", sizes, criterion, criterion_conf, criteria, token_loss
        )
        self.start_encoder(encoder_lr_factor, freeze_encoder_updates)

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any], torch.Tensor]:
        """Compute ESPnet's loss and those of the criteria.

        Args:
            speech: Samples ``(B, S)`` or features ``(B, F, C)``.
            speech_lengths: Valid samples or frames, ``(B,)``.
            text: Token ids, ``(B, U)`` int64, padded with -1, without ``<eos>``.
            text_lengths: Tokens, ``(B,)``.
            kwargs: As ESPnet's; ``utt_id``, names of the utterances, for criteria.

        Returns:
            Loss, statistics for the log, and the weight of the batch: utterances, or
            target tokens with ``loss_normalizer: token``.
        """
        wanted = self.wanted_taps()
        n_tokens = (text_lengths + 1).sum()
        with self.tapped_encoder(wanted) as layers, self._stepping(wanted) as step:
            loss, stats, weight = super().forward(
                speech, speech_lengths, text, text_lengths, **kwargs
            )
        if self.per_token:
            # All losses of ESPnet's model are sums divided by the number of utterances.
            scale = text.size(0) / n_tokens
            loss, weight = loss * scale, n_tokens
            for name, value in stats.items():
                if name.startswith("loss") and value is not None:
                    stats[name] = value * scale
        if self.has_criteria:
            assert step.encoded is not None
            hs_pad, hlens = step.encoded
            taps = self.make_taps(
                wanted,
                layers,
                kwargs.get("utt_id"),
                hs_pad=hs_pad[0] if isinstance(hs_pad, tuple) else hs_pad,
                hlens=hlens,
                ys_pad=text,
                ys_pad_lens=text_lengths,
                speech=speech,
                speech_lengths=speech_lengths,
                logits=step.logits,
                states=step.states,
            )
            by_token = self.per_token or self.length_normalized_loss
            divisor = n_tokens if by_token else text.size(0)
            stats.pop("loss")
            loss = self.add_distillation(loss, stats, taps, divisor)
            stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, weight), loss.device)

    def encode(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run frontend and encoder, as in ESPnet."""
        encoded = super().encode(speech, speech_lengths)
        if self._step is not None:
            self._step.encoded = encoded
        return encoded  # type: ignore[no-any-return]

    def batch_weight(self, taps: Taps) -> torch.Tensor:
        """Return the weight of the batch: utterances, or target tokens."""
        if self.per_token:
            return super().batch_weight(taps)
        n_batch = taps.hs_pad.size(0)
        return torch.full((), n_batch, device=taps.hs_pad.device)  # no copy

    @contextlib.contextmanager
    def _stepping(self, wanted: frozenset[str]) -> Iterator[_Step]:
        """Keep what the wanted taps need while ESPnet's model runs."""
        step, handles = _Step(), []

        def keep_states(module: Any, given: tuple[Any, ...], made: Any) -> None:
            step.states = dict.fromkeys(("output", "transformer"), given[0])

        def keep_logits(module: Any, given: tuple[Any, ...], made: Any) -> None:
            step.logits = made[0]

        if any(tap.startswith("states:") for tap in wanted):
            layer = self.decoder.output_layer
            handles.append(layer.register_forward_hook(keep_states))
        if "logits" in wanted:
            handles.append(self.decoder.register_forward_hook(keep_logits))
        if self.has_criteria:
            self._step = step
        try:
            yield step
        finally:
            self._step = None
            for handle in handles:
                handle.remove()
