"""What the tokens of a decoder read of the audio, beside their fired vectors."""

from abc import ABC, abstractmethod

from torch import Tensor


class Near(ABC):
    """What each of L tokens of N utterances or hypotheses reads near its firing."""

    @abstractmethod
    def utterances(self, chosen: Tensor) -> "Near":
        """Choose or repeat utterances by their indices, ``(M,)`` int64."""

    @abstractmethod
    def tokens(self, chosen: Tensor) -> "Near":
        """Choose tokens by their indices, ``(M,)`` int64; after the last: the last."""

    @abstractmethod
    def first(self, count: int) -> "Near":
        """Keep the first utterances."""
