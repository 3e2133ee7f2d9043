"""The units of a recogniser with Whisper's decoder, and Whisper's tokens for them.

Either the pieces of words that Whisper's tokenizer knows, as a sentencepiece model of
ESPnet, or the units of any token list of ESPnet, such as Mandarin characters.

Whisper joins bytes to tokens in the order of their ids, and so does the BPE of
sentencepiece in the order of scores. So a sentencepiece model with those of Whisper's
tokens that are made of the characters of the transcripts divides words as Whisper does:
ESPnet needs no other tokenizer, and each piece has its embedding in Whisper's decoder.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_bytes

SPACE = "▁"


class WhisperPieces:
    """The pieces for some texts, in Whisper's order.

    Args:
        tokenizer: Tokenizer of transformers, a fast one.
        texts: Transcripts. If they have no small letter, the pieces have capitals, and
            stand for Whisper's tokens of small letters.
        count: Number of pieces: all that the texts need, then the first of Whisper's
            order.

    Attributes:
        pieces: As in sentencepiece: ``▁`` is a space.
        ids: Whisper's token of each piece.

    Raises:
        UserError: A character is no token of Whisper, or ``count`` does not fit.
    """

    def __init__(self, tokenizer: Any, texts: Iterable[str], count: int) -> None:
        texts = list(texts)
        capitals = _capitals(texts)
        words = {
            w for text in texts for w in (text.lower() if capitals else text).split()
        }
        if not words:
            raise UserError("the text has no words: give transcripts")
        characters = {char for word in words for char in word}
        known = _tokens(tokenizer, characters)
        missing = sorted({SPACE, *characters} - set(known))
        if missing:
            raise UserError(
                f"Whisper's tokenizer has no token for {''.join(missing[:10])!r}: "
                "remove the utterances with these characters, or keep the units of a "
                "token list (--token_list)"
            )
        needed = {SPACE, *characters}.union(*(_joined(word, known) for word in words))
        if not len(needed) <= count <= len(known):
            raise UserError(
                f"{count} pieces: the text needs {len(needed)}, and Whisper has "
                f"{len(known)} of its characters; choose a number between them"
            )
        others = (
            one for one in sorted(known, key=known.__getitem__) if one not in needed
        )
        chosen = [*needed, *(one for one, _ in zip(others, range(count - len(needed))))]
        chosen.sort(key=known.__getitem__)
        self.ids = [known[one] for one in chosen]
        self.pieces = [one.upper() if capitals else one for one in chosen]

    def write_model(self, path: Path) -> None:
        """Write the sentencepiece model."""
        from sentencepiece import sentencepiece_model_pb2 as proto

        model = proto.ModelProto()
        kinds = proto.ModelProto.SentencePiece
        for piece, kind in (
            ("<unk>", kinds.UNKNOWN),
            ("<s>", kinds.CONTROL),
            ("</s>", kinds.CONTROL),
        ):
            model.pieces.add(piece=piece, score=0.0, type=kind)
        for number, piece in enumerate(self.pieces):
            model.pieces.add(piece=piece, score=-float(number))
        model.trainer_spec.model_type = proto.TrainerSpec.BPE
        model.trainer_spec.vocab_size = len(model.pieces)
        model.normalizer_spec.name = "identity"
        model.normalizer_spec.add_dummy_prefix = True
        model.normalizer_spec.remove_extra_whitespaces = True
        model.normalizer_spec.escape_whitespaces = True
        write_bytes(path, model.SerializeToString())


def unit_tokens(tokenizer: Any, units: Sequence[str]) -> list[list[int]]:
    """Return Whisper's tokens of each unit of a token list.

    Args:
        tokenizer: Tokenizer of transformers.
        units: Units of ESPnet: characters with ``<space>``, or pieces of sentencepiece.
            If they have no small letter, capitals stand for small ones.

    Returns:
        At least one token for each unit; none for a symbol such as ``<noise>``.
    """
    texts = [_written(unit) for unit in units]
    if _capitals(texts):
        texts = [text.lower() for text in texts]
    return [list(tokenizer.encode(one, add_special_tokens=False)) for one in texts]


def _written(unit: str) -> str:
    """What a unit writes; a symbol writes nothing."""
    if unit == "<space>":
        return " "
    return "" if re.fullmatch("<.+>", unit) else unit.replace(SPACE, " ")


def _capitals(texts: Iterable[str]) -> bool:
    """Whether the texts have no small letter."""
    return not any(char.islower() for text in texts for char in text)


def _tokens(tokenizer: Any, characters: set[str]) -> dict[str, int]:
    """Return the tokens that have only these characters, with ids; a space is ``▁``."""
    found: dict[str, int] = {}
    special = set(tokenizer.all_special_ids)
    for index in range(len(tokenizer)):
        if index in special:
            continue
        text: str = tokenizer.decode([index], clean_up_tokenization_spaces=False)
        rest = text[1:] if text[:1] == " " else text
        if set(rest) <= characters and (rest or text == " "):
            found.setdefault(text.replace(" ", SPACE), index)
    return found


def _joined(word: str, known: dict[str, int]) -> set[str]:
    """Join the characters of a word as BPE does; return all pieces on the way."""
    parts = [SPACE, *word]
    met: set[str] = set()
    while len(parts) > 1:
        pairs = [a + b for a, b in itertools.pairwise(parts)]
        first = min(pairs, key=lambda pair: known.get(pair, len(known) + 10**9))
        if first not in known:
            break
        place = pairs.index(first)
        parts[place : place + 2] = [first]
        met.add(first)
    return met


def token_list(pieces: Sequence[str]) -> list[str]:
    """Return ESPnet's token list for pieces."""
    return ["<blank>", "<unk>", *pieces, "<sos/eos>"]
