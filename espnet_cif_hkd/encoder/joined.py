"""An encoder whose frames are its input beside what another encoder finds in it."""

from collections.abc import Mapping
from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from torch import Tensor

from espnet_cif_hkd.errors import UserError


class JoinedEncoder(AbsEncoder):  # type: ignore[misc]
    """Features, and beside them the output of a small encoder.

    A decoder that was pre-trained on these features, such as Whisper's, reads the first
    C dimensions, which no loss changes. CTC and the predictor of CIF read all.

    Args:
        input_size: C, size of the features.
        encoder: The small encoder by its name in ESPnet; it must keep the frame rate,
            as ``input_layer: linear`` does.
        encoder_conf: Options of the small encoder.

    Raises:
        UserError: The small encoder is unknown.
    """

    def __init__(
        self,
        input_size: int,
        encoder: str = "conformer",
        encoder_conf: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        from espnet2.tasks.asr import encoder_choices

        if encoder not in encoder_choices.choices():
            raise UserError(
                f"encoder_conf: encoder {encoder!r} is unknown; choose "
                f"{', '.join(encoder_choices.choices())}"
            )
        kind = encoder_choices.get_class(encoder)
        self.encoder = kind(input_size=input_size, **(encoder_conf or {}))
        self._size = input_size + self.encoder.output_size()

    def output_size(self) -> int:
        """Return C plus the size of the small encoder."""
        return self._size

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encode features.

        Args:
            xs_pad: ``(B, T, C)``.
            ilens: Valid frames, ``(B,)``.
            prev_states: Not used.
            kwargs: For the small encoder.

        Returns:
            ``(B, T, C + D)``, the valid frames, and None.

        Raises:
            UserError: The small encoder changes the frame rate.
        """
        found, lengths, _ = self.encoder(xs_pad, ilens, prev_states, **kwargs)
        if isinstance(found, tuple):  # with intermediate outputs
            found = found[0]
        if found.size(1) != xs_pad.size(1):
            raise UserError(
                f"encoder: joined has {xs_pad.size(1)} frames, but its small encoder "
                f"returns {found.size(1)}: set input_layer: linear in "
                "encoder_conf.encoder_conf"
            )
        return torch.cat([xs_pad, found.to(xs_pad.dtype)], dim=2), lengths, None
