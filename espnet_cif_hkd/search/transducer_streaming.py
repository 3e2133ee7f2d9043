"""Greedy search of a transducer over the frames of a stream."""

from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.search.stepwise import StreamedToken
from espnet_cif_hkd.search.transducer_greedy import predicted_step


class TransducerStream:
    """Emit at most one token for each frame, as soon as the frame is there.

    Tokens are those of
    :func:`espnet_cif_hkd.search.transducer_greedy.transducer_greedy_search`. The state
    is that of the prediction network and does not grow.

    Args:
        decoder: ESPnet's ``TransducerDecoder`` in ``eval`` mode.
        joint_network: ESPnet's ``JointNetwork``.

    Attributes:
        state: Output of the prediction network for the tokens so far, ``(1, J)``, and
            its states.
    """

    def __init__(self, decoder: Any, joint_network: Any) -> None:
        self._decoder, self._joint = decoder, joint_network
        self.state: tuple[Tensor, tuple[Any, ...]] | None = None

    @torch.no_grad()
    def push(self, hidden: Tensor) -> list[tuple[int, StreamedToken]]:
        """Search further encoder frames.

        Args:
            hidden: ``(T, D)``.

        Returns:
            Index of its frame in ``hidden``, and the token.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            return self._search(hidden.to(self._joint.lin_enc.weight.dtype))

    def _search(self, hidden: Tensor) -> list[tuple[int, StreamedToken]]:
        decoder, joint = self._decoder, self._joint
        decoder.set_device(hidden.device)
        if self.state is None:
            blank = torch.full((1,), decoder.blank_id, device=hidden.device)
            self.state = predicted_step(decoder, joint, blank, decoder.init_state(1))
        found = []
        for frame, projected in enumerate(joint.lin_enc(hidden)):
            predicted, states = self.state
            logits = joint(projected[None], predicted, no_projection=True)
            best, token = logits.float().log_softmax(dim=-1).max(dim=-1)
            if int(token) != decoder.blank_id:
                found.append((frame, StreamedToken(int(token), float(best))))
                self.state = predicted_step(decoder, joint, token, states)
        return found
