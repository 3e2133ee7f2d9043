"""Prepare Whisper's decoder for training under CIF (decoder: cif_whisper).

Writes to a folder: the decoder's parameters (decoder.pth) and its size (config.yaml).
The units are pieces of Whisper's tokenizer that are made of the characters of the
transcripts: then also a sentencepiece model (bpe.model) and token list (tokens.txt). Or
they are those of a token list, such as Mandarin characters: a unit of several tokens of
Whisper starts with the mean of their embeddings, and is predicted as the first one.

  python3 -m espnet_cif_hkd.cli.whisper_decoder whisper-base data/pieces \\
      --language en --text data/train/text --pieces 8000
  ./asr.sh --token_type bpe ... --pretrained_model FOLDER/decoder.pth:decoder:decoder
  python3 -m espnet_cif_hkd.cli.whisper_decoder whisper-base data/zh_decoder \
      --language zh --token_list data/zh_token_list/char/tokens.txt
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import replacing, write_text
from espnet_cif_hkd.io.digest import sha256, weights_digest
from espnet_cif_hkd.io.disk import require_writable
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import read_text
from espnet_cif_hkd.recipe.stages.tokens import read_token_list

_FILES = ("decoder.pth", "config.yaml")
_UNITS = ("bpe.model", "tokens.txt")
_MARK = "whisper_decoder.json"
_PIECES = 8000


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument("model", type=Path, help="folder of a Whisper of transformers")
    parser.add_argument("output", type=Path, help="folder for the files")
    parser.add_argument("--language", help="such as en; not for English-only models")
    parser.add_argument(
        "--text",
        type=Path,
        nargs="+",
        help="transcripts (Kaldi tables); all their words can be written",
    )
    parser.add_argument("--pieces", type=int, help=f"number of pieces ({_PIECES})")
    parser.add_argument(
        "--token_list", type=Path, help="keep these units of ESPnet, instead of --text"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the files, unless they are up to date.

    Raises:
        UserError: The model cannot be opened, or text or token list do not fit.
    """
    _check(args)
    listed = _listed(args.token_list) if args.token_list else None
    made_by = _made_by(args)
    mark = args.output / _MARK
    files = _FILES if args.token_list else (*_UNITS, *_FILES)
    complete = all((args.output / name).is_file() for name in files)
    if complete and mark.is_file() and mark.read_text(encoding="utf-8") == made_by:
        log(f"{args.output}: is up to date")
        return

    import torch
    import yaml

    from espnet_cif_hkd.teachers.speech.whisper_decoder import (
        decoder_options,
        initial_parameters,
    )
    from espnet_cif_hkd.teachers.speech.whisper_pieces import token_list, unit_tokens
    from espnet_cif_hkd.teachers.speech.whisper_text import WhisperText

    require_writable(args.output.parent)
    model = WhisperText(args.model, language=args.language)
    whisper: Any = model.model
    options = decoder_options(whisper.config, len(model.prompt))
    if listed:
        pieces = None
        units = unit_tokens(model.tokenizer, listed)
    else:
        pieces = _pieces(args, model.tokenizer)
        units = [[], *([one] for one in pieces.ids)]
    parameters = initial_parameters(
        whisper.model.decoder.state_dict(),
        units,
        model.prompt,
        whisper.config.eos_token_id,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    if pieces:
        pieces.write_model(args.output / "bpe.model")
        tokens = token_list(pieces.pieces)
        lines = "".join(f"{one}\n" for one in tokens)
        write_text(args.output / "tokens.txt", lines)
    with replacing(args.output / "decoder.pth") as part:
        torch.save(parameters, part)
    conf = {"decoder": "cif_whisper", "decoder_conf": options}
    write_text(args.output / "config.yaml", yaml.safe_dump(conf))
    write_text(mark, made_by)
    several = sum(len(one) > 1 for one in units)
    parts = f", {several} of several tokens of Whisper" if several else ""
    sizes = ", ".join(f"{name}: {value}" for name, value in options.items())
    log(f"{args.output}: {len(units) + 2} units{parts}; decoder_conf: {{{sizes}}}")


def _pieces(args: argparse.Namespace, tokenizer: Any) -> Any:
    """The pieces for the transcripts."""
    from espnet_cif_hkd.teachers.speech.whisper_pieces import WhisperPieces

    texts = [line for path in args.text for line in read_text(path).values()]
    return WhisperPieces(tokenizer, texts, args.pieces or _PIECES)


def _listed(path: Path) -> list[str]:
    """Read a token list, without ``<blank>`` and ``<sos/eos>``."""
    first, *units, last = read_token_list(path)
    if (first, last) != ("<blank>", "<sos/eos>"):
        raise UserError(
            f"--token_list {path}: is from {first} to {last}; ESPnet's are from "
            "<blank> to <sos/eos>: give the tokens.txt of stage 5"
        )
    return units


def _check(args: argparse.Namespace) -> None:
    if bool(args.token_list) == bool(args.text):
        raise UserError(
            "give --text for pieces of Whisper's tokenizer, or --token_list to keep "
            "other units"
        )
    if args.token_list and args.pieces:
        raise UserError("--pieces: --token_list has all units; leave --pieces out")
    for path in args.text or ():
        if not path.is_file():
            raise UserError(f"--text {path}: there is no such file")


def _made_by(args: argparse.Namespace) -> str:
    given: dict[str, Any] = {
        "model": weights_digest(args.model),
        "language": args.language,
    }
    if args.token_list:
        given["token_list"] = sha256(args.token_list)
    else:
        given["text"] = [sha256(path) for path in args.text]
        given["pieces"] = args.pieces or _PIECES
    return json.dumps(given)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
