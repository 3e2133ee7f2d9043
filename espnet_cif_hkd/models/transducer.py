"""A transducer on ESPnet's prediction and joint network, without ``warprnnt``."""

from typing import Any

import torch
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.asr.specaug.abs_specaug import AbsSpecAug
from espnet2.layers.abs_normalize import AbsNormalize
from espnet2.torch_utils.device_funcs import force_gatherable

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.rnnt import rnnt_loss
from espnet_cif_hkd.models.checkpoint import (
    VERSION_KEY,
    load_checked,
    token_list_digest,
    version_tensor,
)
from espnet_cif_hkd.models.distilling import DistillingMixin
from espnet_cif_hkd.models.short_audio import refuse_short_audio
from espnet_cif_hkd.search.transducer_greedy import transducer_greedy_search


class TransducerASRModel(DistillingMixin, ESPnetASRModel):  # type: ignore[misc]
    """ESPnet's transducer with our loss, CTC beside it, and criteria in training.

    The parameters have ESPnet's names, so ESPnet's checkpoints load with
    ``--init_param``; ESPnet's ``asr_inference`` decodes with all its transducer
    searches. As in ``model: cif``, every loss is a sum over the batch, divided by the
    number N of target tokens, ``<eos>`` included, and N is the weight of the batch in
    ESPnet's trainer. ``<eos>`` counts only there: a transducer does not emit it.

    Validation decodes each batch by greedy search and reports ``acc``, one minus the
    token error rate, and ``cer`` and ``wer``.

    Taps: ``hs_pad``, ``layer:N``; ``states:output``, the output of the prediction
    network: state l has read the tokens before token l; ``logits``, the output of the
    joint network for each frame and state; ``joint``, the joint network itself.

    Args:
        vocab_size: V.
        token_list: Names of the V tokens; the blank is the first.
        frontend, specaug, normalize, preencoder, encoder, postencoder, ctc: As in
            ESPnet.
        decoder: ESPnet's ``transducer``.
        joint_network: ESPnet's, from ``joint_net_conf``.
        ctc_weight: Weight of CTC on the encoder's output, ``0 <= w < 1``; added to the
            other losses, as in ESPnet's transducer.
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
        report_cer: Whether validation computes character error rates.
        report_wer: Whether validation computes the word error rate.
        sym_space: The token that means a space.
        sym_blank: The blank token of transducer and CTC.
        sym_sos: The token that begins a sentence in a language model.
        sym_eos: The token that ends a sentence in a language model.
        autocast_frontend: Whether the frontend uses mixed precision, too, as in ESPnet.
        extract_feats_in_collect_stats: Whether stage 10 computes statistics of
            features, as in ESPnet.

    Raises:
        UserError: If an option does not fit a transducer, or a criterion wants a tap
            that the model lacks.

    Source: Graves, arXiv 1211.3711.
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
        ctc_weight: float = 0.3,
        criterion: str | None = None,
        criterion_conf: dict[str, Any] | None = None,
        criteria: dict[str, Any] | None = None,
        encoder_lr_factor: float = 1.0,
        freeze_encoder_updates: int = 0,
        ignore_id: int = -1,
        report_cer: bool = True,
        report_wer: bool = True,
        sym_space: str = "<space>",
        sym_blank: str = "<blank>",
        sym_sos: str = "<sos/eos>",
        sym_eos: str = "<sos/eos>",
        autocast_frontend: bool = False,
        extract_feats_in_collect_stats: bool = True,
    ) -> None:
        if not isinstance(decoder, TransducerDecoder) or joint_network is None:
            raise UserError(
                "model: transducer needs decoder: transducer with joint_net_conf, got "
                f"{type(decoder).__name__}; set 'decoder: transducer' and 'joint_net_"
                "conf: {joint_space_size: 256}' in the training configuration"
            )
        if not 0.0 <= ctc_weight < 1.0:
            raise UserError(
                f"model_conf: ctc_weight {ctc_weight} must be at least 0 and less than "
                "1: it is added to the transducer loss, such as 0.3"
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
            joint_network=None,  # ESPnet would import warprnnt_pytorch
            ctc_weight=ctc_weight,
            ignore_id=ignore_id,
            report_cer=report_cer,
            report_wer=report_wer,
            sym_space=sym_space,
            sym_blank=sym_blank,
            sym_sos=sym_sos,
            sym_eos=sym_eos,
            autocast_frontend=autocast_frontend,
            extract_feats_in_collect_stats=extract_feats_in_collect_stats,
        )
        self.joint_network = joint_network
        self.use_transducer_decoder = True
        if self.token_list[decoder.blank_id] != sym_blank:
            raise UserError(
                f"model: transducer: token {decoder.blank_id} must be the blank, but "
                f"is {self.token_list[decoder.blank_id]!r}; ESPnet's transducer search "
                f"expects sym_blank {sym_blank!r} as the first line of the token list"
            )
        last: Any = encoder if postencoder is None else postencoder
        joint: Any = joint_network
        width, expected = last.output_size(), joint.lin_enc.in_features
        if width != expected:
            raise UserError(
                f"model: transducer: frames have size {width} after the postencoder, "
                f"and ESPnet builds the joint network for {expected}, the size of the "
                "encoder; remove the postencoder or give it this size"
            )
        self.register_buffer("token_list_digest", token_list_digest(self.token_list))
        self.register_buffer(VERSION_KEY, version_tensor())
        sizes = {"hs_pad": width, "states:output": decoder.dunits}
        sizes |= dict.fromkeys(("joint", "logits"), vocab_size)
        self.add_criteria("transducer", sizes, criterion, criterion_conf, criteria)
        self.start_encoder(encoder_lr_factor, freeze_encoder_updates)

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
        n_tokens = (text_lengths + 1).sum()

        padded = torch.arange(text.size(1), device=text.device) >= text_lengths[:, None]
        labels = text.masked_fill(padded, self.blank_id)
        self.decoder.set_device(hs_pad.device)
        # Small, and torch's LSTM has no bfloat16 on many CPUs.
        with torch.autocast(hs_pad.device.type, enabled=False):
            states = self.decoder(  # (B, U + 1, D)
                torch.nn.functional.pad(labels, (1, 0), value=self.blank_id)
            )
        logits = self.joint_network(hs_pad[:, :, None], states[:, None])
        losses = rnnt_loss(logits, labels, hlens, text_lengths, self.blank_id)
        loss = losses.sum() / n_tokens
        stats: dict[str, Any] = {"loss_transducer": loss.detach()}
        if self.ctc is not None:
            frames, tokens = hlens, text_lengths
            if self.ctc.ctc_type == "builtin":  # loops over them on the host
                frames, tokens = torch.stack([hlens.to(tokens), tokens]).cpu()
            loss_ctc, cer_ctc = self._calc_ctc_loss(hs_pad, frames, text, tokens)
            # ESPnet's is a mean over the batch.
            loss_ctc = loss_ctc.float() * text.size(0) / n_tokens
            loss = loss + self.ctc_weight * loss_ctc
            stats.update(loss_ctc=loss_ctc.detach(), cer_ctc=cer_ctc)
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
                states={"output": states},
                logits=logits,
                joint=self.joint_network,
            )
            loss = self.add_distillation(loss, stats, taps, n_tokens)
        stats["loss"] = loss.detach()
        if not self.training:
            stats.update(self._error_rates(hs_pad, hlens, text, text_lengths))
        return force_gatherable((loss, stats, n_tokens), loss.device)

    def encode(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run frontend and encoder, as in ESPnet.

        Raises:
            TooShortUttError: Also if there are fewer samples than half a window of the
                frontend.
        """
        refuse_short_audio(self.frontend, speech)
        return super().encode(speech, speech_lengths)  # type: ignore[no-any-return]

    def _error_rates(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
    ) -> dict[str, float | None]:
        """Return error rates of the greedy search; None for a batch without text."""
        import editdistance  # type: ignore[import-untyped]

        found = transducer_greedy_search(
            self.decoder, self.joint_network, hs_pad, hlens
        )
        hyps = [one.yseq[1:] for one in found]
        refs = [
            row[:n] for row, n in zip(text.cpu(), text_lengths.tolist(), strict=True)
        ]
        n_errors = sum(
            editdistance.eval(hyp.tolist(), ref.tolist())
            for hyp, ref in zip(hyps, refs, strict=True)
        )
        n_tokens = sum(map(len, refs))
        rates = {"acc": 1 - n_errors / n_tokens if n_tokens else None}
        calculator = self.error_calculator
        if calculator is None:
            return rates
        # The calculator cuts hypotheses at the length of their references; it does not
        # cut references. So both are passed as references.
        hyp_texts, ref_texts = (
            calculator.convert_to_char(rows, [row.numpy() for row in rows])[1]
            for rows in (hyps, refs)
        )
        if calculator.report_cer:
            spoken = any(one.replace(" ", "") for one in ref_texts)
            rates["cer"] = (
                calculator.calculate_cer(hyp_texts, ref_texts) if spoken else None
            )
        if calculator.report_wer:
            spoken = any(one.split() for one in ref_texts)
            rates["wer"] = (
                calculator.calculate_wer(hyp_texts, ref_texts) if spoken else None
            )
        return rates

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
