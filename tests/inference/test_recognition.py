"""The result object: consistency and dictionaries."""

import dataclasses
import json
import subprocess
import sys

import pytest

from espnet_cif_hkd.inference.recognition import (
    Flag,
    Recognition,
    Segment,
    Token,
    Word,
)


def _result() -> Recognition:
    tokens = (
        Token("SO", "SO", 5, 0.1, 0.3, 0.9),
        Token(" FA", "▁FA", 6, 0.3, 0.5, 0.8),
        Token("R", "R", 7, 0.5, 0.9, None),
    )
    words = Word("SO", 0.1, 0.3, 0.9, 0, 1), Word("FAR", 0.3, 0.9, 0.8, 1, 3)
    one = Recognition(
        text="SO FAR",
        tokens=tokens,
        words=words,
        segments=(Segment("SO FAR", 0.1, 0.9, 0.85, 0, 2),),
        duration=1.0,
        score=-1.5,
        flags=(Flag("missing", 0.5, 0.9, 0.7),),
    )
    return dataclasses.replace(one, nbest=(one, Recognition(duration=1.0)))


def test_a_consistent_result_is_returned() -> None:
    assert _result().validate() == _result()
    assert Recognition().validate() == Recognition()


def test_json_gives_the_result_back() -> None:
    described = json.loads(json.dumps(_result().to_dict()))

    assert Recognition.from_dict(described) == _result()


@pytest.mark.parametrize(
    ("part", "index", "changes", "message"),
    [
        ("tokens", 0, {"text": "S"}, "the tokens' text is 'S FAR'"),
        ("tokens", 2, {"end": 1.1}, "token 2 .* of 1.0 s"),
        ("tokens", 1, {"end": 0.3}, "token 1 .* is from 0.3 to 0.3"),
        ("tokens", 2, {"start": 0.2}, "token 2 .* is before the one before"),
        ("tokens", 0, {"start": float("nan")}, "token 0 .* is from nan"),
        ("tokens", 0, {"confidence": 1.5}, "token 0 .* has confidence 1.5"),
        ("words", 1, {"last": 4}, "word 1 .* has the parts 1 to 4"),
        ("words", 1, {"first": 0}, "word 1 .* has the parts 0 to 3"),
        ("words", 1, {"end": 0.8}, "word 1 .* its parts from 0.3 to 0.9"),
        ("segments", 0, {"start": 0.0}, "segment 0 .* its parts from 0.1"),
    ],
)
def test_each_fault_is_named(
    part: str, index: int, changes: dict[str, object], message: str
) -> None:
    parts = list(getattr(_result(), part))
    parts[index] = dataclasses.replace(parts[index], **changes)

    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_result(), **{part: tuple(parts)}).validate()


def test_a_fault_among_the_n_best_is_found() -> None:
    bad = dataclasses.replace(_result(), text="SO", nbest=())

    with pytest.raises(ValueError, match="not 'SO'"):
        dataclasses.replace(_result(), nbest=(bad,)).validate()


def test_the_module_needs_no_torch() -> None:
    code = (
        "import sys, espnet_cif_hkd.inference.recognition as one; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
