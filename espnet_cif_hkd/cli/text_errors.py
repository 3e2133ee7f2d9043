"""Errors of texts in relation to transcripts, for commands that fit an option."""

from collections.abc import Collection
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import byte_order, first_few, read_text
from espnet_cif_hkd.recipe.stages.sclite import align


class TextErrors:
    """Counts the errors of texts with the alignment of stage 13, without its cleaners.

    Args:
        path: Transcripts.
        keys: Utterances that are counted.
        unit: ``word`` or ``char``; None chooses.

    Attributes:
        unit: ``word`` or ``char``.

    Raises:
        UserError: An utterance has no transcript.
    """

    def __init__(self, path: Path, keys: Collection[str], unit: str | None):
        texts = read_text(path)
        if missing := sorted(set(keys) - set(texts), key=byte_order):
            raise UserError(
                f"{path} lacks {len(missing)} of {len(keys)} utterances "
                f"({first_few(missing)}): give the transcripts of this set"
            )
        self._texts = {key: texts[key] for key in keys}
        spaces = any(" " in text for text in self._texts.values())
        self.unit = unit or ("word" if spaces else "char")
        self._length = sum(len(self._split(text)) for text in self._texts.values())

    def __call__(self, key: str, text: str) -> int:
        return align(self._split(self._texts[key]), self._split(text)).errors

    def rate(self, errors: int) -> float:
        """Errors in per cent of the transcripts' units."""
        return 100 * errors / max(1, self._length)

    def _split(self, text: str) -> list[str]:
        return text.split() if self.unit == "word" else list(text.replace(" ", "▁"))
