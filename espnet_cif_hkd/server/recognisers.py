"""What the server needs of a recogniser, and the models that it serves."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.server.errors import ApiError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


class Stream(Protocol):
    """Audio that arrives in pieces."""

    def accept(self, samples: FloatArray) -> Recognition:
        """Return what is recognised so far; tokens never change later."""

    def finish(self) -> Recognition:
        """Return the result after the last piece."""


class Recogniser(Protocol):
    """A model, as ``Recognizer`` is.

    A recogniser may also have ``long`` for long files, ``stream`` for streams, and
    ``alphas`` for pictures, as :class:`espnet_cif_hkd.inference.recognizer.Recognizer`.
    """

    sampling_rate: int

    def recognise(self, samples: FloatArray) -> Any:
        """Return the :class:`Recognition` of samples ``(S,)``."""


@dataclass(frozen=True)
class Models(Mapping[str, Recogniser]):
    """The models that are served, by name; the first is the default.

    Attributes:
        loaded: The models.
        private: Texts that no message may contain, such as folders of models, and what
            to write instead.
    """

    loaded: Mapping[str, Recogniser]
    private: Mapping[str, str]

    def __getitem__(self, name: str) -> Recogniser:
        return self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaded)

    def __len__(self) -> int:
        return len(self.loaded)

    def find(self, name: str | None) -> Recogniser:
        """Return a model; without a name the default.

        Raises:
            ApiError: There is no model of this name.
        """
        chosen = name or next(iter(self))
        if chosen not in self.loaded:
            raise ApiError(
                404,
                f"there is no model {chosen[:64]!r}: use one of {', '.join(self)}",
                "model_not_found",
                param="model",
            )
        return self.loaded[chosen]

    def public(self, message: str) -> str:
        """Return a message without line breaks and without paths of this machine."""
        for text in sorted(self.private, key=len, reverse=True):
            message = message.replace(text, self.private[text])
        message = re.sub(r"(?<![\w.:/])~?/[^\s'\":;,)]+", "(a path)", message)
        return " ".join(message.split())
