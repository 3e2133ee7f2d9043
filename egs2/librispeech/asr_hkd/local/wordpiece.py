"""Make a tokenizer folder with the WordPieces of the teacher as tokens.

ESPnet's ``--token_type hugging_face`` splits text with the tokenizer of a folder and
joins the tokens with it again. BERT's tokenizer does not restore the text: it splits
DON'T into three words and joins them as "don ' t". This one has the same pieces and the
same rule (longest piece first), but splits words at white space only, so the text is
restored: don ##' ##t. It keeps only pieces spelled with the letters of LibriSpeech, and
has ESPnet's symbols at their positions in ESPnet's token lists.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import write_text
from espnet_cif_hkd.teachers.text.plm import open_tokenizer, teacher_config

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BLANK, UNKNOWN, SOS_EOS = "<blank>", "<unk>", "<sos/eos>"
_PREFIX = "##"
_PIECE = re.compile(rf"({_PREFIX})?[{LETTERS}]+")


def pieces(tokenizer: Any) -> list[str]:
    """The teacher's WordPieces that are spelled with ``LETTERS``, in its order.

    Raises:
        UserError: the tokenizer has no WordPieces, or a letter is missing.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    prefix = model.get("continuing_subword_prefix")
    if model["type"] != "WordPiece" or prefix != _PREFIX:
        raise UserError(
            f"teacher {tokenizer.name_or_path}: its tokenizer is not WordPiece with "
            f"{_PREFIX}: run with --units bpe, whose tokens are aligned by characters"
        )
    known = sorted(model["vocab"], key=model["vocab"].__getitem__)
    kept = [piece for piece in known if _PIECE.fullmatch(piece)]
    singles = [prefix + letter for letter in LETTERS for prefix in ("", _PREFIX)]
    missing = sorted(set(singles) - set(kept))
    if missing:
        raise UserError(
            f"teacher {tokenizer.name_or_path}: its vocabulary lacks "
            f"{' '.join(missing)}, so it cannot spell all words: "
            "run with --units bpe"
        )
    return kept


def tokenizer_files(kept: Sequence[str]) -> dict[str, str]:
    """The two files of a tokenizer folder: name → content."""
    vocab = {token: n for n, token in enumerate([BLANK, UNKNOWN, *kept, SOS_EOS])}
    special = [
        {
            "id": vocab[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in (BLANK, UNKNOWN, SOS_EOS)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        # The first decoder keeps the prefix of a piece that begins a hypothesis.
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "WordPiece", "prefix": _PREFIX, "cleanup": False},
                {"type": "Replace", "pattern": {"String": _PREFIX}, "content": ""},
            ],
        },
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": _PREFIX,
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "pad_token": BLANK,
        "unk_token": UNKNOWN,
        "eos_token": SOS_EOS,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def _criterion(asr_config: Path) -> dict[str, Any]:
    """``model_conf.criterion_conf`` of a configuration, empty if it has none."""
    if not asr_config.is_file():
        raise UserError(f"--wordpiece {asr_config}: no such file")
    try:
        conf = yaml.safe_load(asr_config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{asr_config} is not YAML ({reason}): correct it") from error
    for place in ("model_conf", "criterion_conf"):
        conf = _mapping(conf, asr_config).get(place)
    return _mapping(conf, asr_config)


def _mapping(value: Any, source: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{source}: expected 'key: value' lines, not {value!r}")
    return value


def write_tokenizer(asr_config: Path, folder: Path) -> int:
    """Write the folder; returns the number of tokens, ESPnet's symbols included.

    Raises:
        UserError: ``asr_config`` names no teacher, or an unsuitable one.
    """
    criterion = _criterion(asr_config)
    if "teacher" not in criterion:
        raise UserError(
            f"{asr_config} sets no model_conf.criterion_conf.teacher, whose WordPieces "
            "are the units: choose another configuration"
        )
    try:
        kept = pieces(open_tokenizer(teacher_config(criterion)))
    except ImportError as error:
        raise UserError(
            f"the teacher's tokenizer needs transformers ({error}): "
            "python3 -m pip install transformers"
        ) from error
    for name, content in tokenizer_files(kept).items():
        path = folder / name
        # An unchanged file keeps its modification time, which --reuse compares.
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            write_text(path, content)
    return len(kept) + 3


def main(cmd: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="wordpiece.py")
    parser.add_argument("--asr_config", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("data/wordpiece"))
    args = parser.parse_args(cmd)
    try:
        count = write_tokenizer(args.asr_config, args.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    log(f"{args.output}: {count} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
