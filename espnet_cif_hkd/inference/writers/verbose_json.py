"""JSON: OpenAI's ``verbose_json`` with tokens, confidences and warnings added."""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

from espnet_cif_hkd.inference.recognition import Recognition
from espnet_cif_hkd.inference.units import plain, segments_of

# Fields of OpenAI's format that the result does not have.
_FOREIGN = ("task", "language", "name")
_FOREIGN_SEGMENT = (
    *("id", "seek", "tokens", "temperature"),
    *("avg_logprob", "compression_ratio", "no_speech_prob"),
)


def verbose(found: Recognition, name: str = "", language: str = "") -> dict[str, Any]:
    """Return the result as ``verbose_json`` with further fields.

    Added are ``tokens``; ``confidence``, ``first`` and ``last`` of words and segments
    (indices of tokens and of words); ``score``, ``nbest`` and ``flags``; ``name``.
    Fields of Whisper that have no meaning here are constant: ``temperature`` and
    ``no_speech_prob`` are 0. ``avg_logprob`` is the mean logarithm of the confidences
    or, without them, the score of a token; 0 if both are unknown. Numbers have six
    decimals.

    Args:
        found: The result.
        name: Of the recording; empty: left out.
        language: Of the recording, such as ``en``; empty: unknown.
    """
    fields = found.to_dict()
    fields["words"] = [
        {"word": word.pop("text"), **word} for word in fields.pop("words")
    ]
    fields["segments"] = [
        {**_openai(found, index), **segment}
        for index, segment in enumerate(fields.pop("segments"))
    ]
    named = {"name": name} if name else {}
    return _rounded({"task": "transcribe", "language": language, **named, **fields})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _openai(found: Recognition, index: int) -> dict[str, Any]:
    one = found.segments[index]
    words = found.words[one.first : one.last]
    tokens = found.tokens[words[0].first : words[-1].last] if words else ()
    known = [token.confidence for token in tokens if token.confidence is not None]
    average = 0.0
    if known:
        average = sum(math.log(max(p, 1e-10)) for p in known) / len(known)
    elif found.score is not None and found.tokens:
        average = found.score / len(found.tokens)
    encoded = one.text.encode("utf-8", "replace")
    ratio = len(encoded) / len(zlib.compress(encoded))
    return {
        "id": index,
        "seek": round(one.start * 100),
        "tokens": [token.id for token in tokens],
        "temperature": 0.0,
        "avg_logprob": average,
        "compression_ratio": ratio,
        "no_speech_prob": 0.0,
    }


def recognition_of(fields: Mapping[str, Any]) -> Recognition:
    """Return the result that :func:`verbose` described.

    Raises:
        KeyError, TypeError: The fields are not those of :func:`verbose`.
    """
    parts = {key: value for key, value in fields.items() if key not in _FOREIGN}
    parts["words"] = [
        {"text": word["word"], **{k: v for k, v in word.items() if k != "word"}}
        for word in fields["words"]
    ]
    parts["segments"] = [
        {k: v for k, v in segment.items() if k not in _FOREIGN_SEGMENT}
        for segment in fields["segments"]
    ]
    return Recognition.from_dict(parts)


def json_text(found: Recognition, name: str) -> str:
    """Write :func:`verbose` as JSON, in UTF-8 characters, one value a line."""
    return json.dumps(verbose(found, name), ensure_ascii=False, indent=1) + "\n"


def txt(found: Recognition, name: str) -> str:
    """Write the text alone, one line for each segment."""
    texts = [plain(one.text) for one in segments_of(found)]
    return "".join(f"{text}\n" for text in texts or [""])
