"""An encoder that learns from speech teachers only, with or without transcripts."""

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

from espnet_cif_hkd.distill.taps import Taps
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.distilling import DistillingMixin


class PretrainModel(DistillingMixin, ESPnetASRModel):  # type: ignore[misc]
    """An encoder whose loss is that of its criteria, such as ``frames``.

    The first of two stages: a recogniser with the same encoder starts from its
    checkpoint by ``--init_param FILE:encoder:encoder``. There is no decoder and no CTC,
    and transcripts are not used. The weight of a batch in ESPnet's trainer is the
    number of its encoder frames.

    Taps: ``hs_pad``, ``layer:N`` and ``speech``.

    Args:
        vocab_size: Not used.
        token_list: Not used.
        frontend, specaug, normalize, preencoder, encoder, postencoder: As in ESPnet.
            SpecAugment must not warp time.
        decoder: Must be None.
        ctc: Not used.
        joint_network: Must be None.
        criterion: Name of a criterion; excludes ``criteria``.
        criterion_conf: Options of the criterion.
        criteria: Several criteria: a mapping from names of your choice to ``type``, the
            name of a criterion, and its options. A loss is logged as ``NAME.loss``.
        autocast_frontend: Whether the frontend uses mixed precision, too, as in ESPnet.
        extract_feats_in_collect_stats: Whether stage 10 computes statistics of
            features, as in ESPnet.

    Raises:
        UserError: If there is no criterion, or a decoder.

    Source: the two stages of Yang et al., arXiv 2303.10917.
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
        criterion: str | None = None,
        criterion_conf: dict[str, Any] | None = None,
        criteria: dict[str, Any] | None = None,
        autocast_frontend: bool = False,
        extract_feats_in_collect_stats: bool = True,
    ) -> None:
        if decoder is not None or joint_network is not None:
            raise UserError(
                f"model: pretrain trains the encoder only, got {type(decoder).__name__}"
                "; remove decoder and joint_net_conf, or set another model"
            )
        if encoder is None:
            raise UserError("model: pretrain needs an encoder; set 'encoder: …'")
        super().__init__(
            vocab_size=vocab_size,
            token_list=list(token_list),
            frontend=frontend,
            specaug=specaug,
            normalize=normalize,
            preencoder=preencoder,
            encoder=encoder,
            postencoder=postencoder,
            decoder=None,
            ctc=ctc,
            joint_network=None,
            ctc_weight=1.0,
            report_cer=False,
            report_wer=False,
            autocast_frontend=autocast_frontend,
            extract_feats_in_collect_stats=extract_feats_in_collect_stats,
        )
        self.ctc = None  # its parameters would have no gradient
        last = encoder if postencoder is None else postencoder
        sizes = {"hs_pad": last.output_size()}
        self.add_criteria("pretrain", sizes, criterion, criterion_conf, criteria)
        if not self.has_criteria:
            raise UserError(
                "model: pretrain has no criterion to learn from; set model_conf: "
                "{criteria: {frames: {type: frames, teachers: …}}}"
            )

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor | None = None,
        text_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any], torch.Tensor]:
        """Compute the losses of the criteria per frame.

        Args:
            speech: Samples ``(B, S)`` or features ``(B, F, C)``.
            speech_lengths: Valid samples or frames, ``(B,)``.
            text: Not used.
            text_lengths: Not used.
            kwargs: ``utt_id``, names of the utterances, for criteria.

        Returns:
            Loss, statistics for the log, and the weight: encoder frames of the batch.
        """
        wanted = self.wanted_taps()
        with self.tapped_encoder(wanted) as layers:
            hs_pad, hlens = self.encode(speech, speech_lengths)
        if isinstance(hs_pad, tuple):  # intermediate outputs are not used
            hs_pad = hs_pad[0]
        none = torch.zeros(len(hlens), dtype=torch.int64, device=hs_pad.device)
        taps = self.make_taps(
            wanted,
            layers,
            kwargs.get("utt_id"),
            hs_pad=hs_pad,
            hlens=hlens,
            ys_pad=none[:, None][:, :0],
            ys_pad_lens=none,
            speech=speech,
            speech_lengths=speech_lengths,
        )
        stats: dict[str, Any] = {}
        # All parameters of the encoder are part of the loss, whatever tap is read.
        loss = hs_pad.flatten()[:0].sum().float()
        loss = self.add_distillation(loss, stats, taps, None)
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, hlens.sum()), loss.device)

    def batch_weight(self, taps: Taps) -> torch.Tensor:
        """Return the weight of the batch: its encoder frames."""
        return taps.hlens.sum()

    def collect_feats(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor | None = None,
        text_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Return the features of the frontend; transcripts are not needed."""
        feats, feats_lengths = self._extract_feats(speech, speech_lengths)
        return {"feats": feats, "feats_lengths": feats_lengths}
