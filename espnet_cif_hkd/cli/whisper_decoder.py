"""Prepare Whisper's decoder for training under CIF (decoder: cif_whisper).

Writes to a folder: a sentencepiece model (bpe.model) and token list (tokens.txt) of the
pieces of Whisper's tokenizer that are made of the characters of the transcripts, the
decoder's parameters (decoder.pth), and its size (config.yaml).

  python3 -m espnet_cif_hkd.cli.whisper_decoder whisper-base data/pieces \\
      --language en --text data/train/text --pieces 8000
  ./asr.sh --token_type bpe ... --pretrained_model FOLDER/decoder.pth:decoder:decoder
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

_FILES = ("bpe.model", "tokens.txt", "decoder.pth", "config.yaml")
_MARK = "whisper_decoder.json"


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
        required=True,
        help="transcripts (Kaldi tables); all their words can be written",
    )
    parser.add_argument(
        "--pieces", type=int, default=8000, help="number of pieces (8000)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the files, unless they are up to date.

    Raises:
        UserError: The model cannot be opened, or the text does not fit.
    """
    made_by = _made_by(args)
    mark = args.output / _MARK
    complete = all((args.output / name).is_file() for name in _FILES)
    if complete and mark.is_file() and mark.read_text(encoding="utf-8") == made_by:
        log(f"{args.output}: is up to date")
        return

    import torch
    import yaml

    from espnet_cif_hkd.teachers.speech.whisper_decoder import (
        decoder_options,
        initial_parameters,
    )
    from espnet_cif_hkd.teachers.speech.whisper_pieces import (
        WhisperPieces,
        token_list,
    )
    from espnet_cif_hkd.teachers.speech.whisper_text import WhisperText

    require_writable(args.output.parent)
    texts = [line for path in args.text for line in read_text(path).values()]
    model = WhisperText(args.model, language=args.language)
    pieces = WhisperPieces(model.tokenizer, texts, args.pieces)
    whisper: Any = model.model
    parameters = initial_parameters(
        whisper.model.decoder.state_dict(),
        pieces.ids,
        model.prompt,
        whisper.config.eos_token_id,
    )
    options = decoder_options(whisper.config, len(model.prompt))
    args.output.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    pieces.write_model(args.output / "bpe.model")
    tokens = token_list(pieces.pieces)
    write_text(args.output / "tokens.txt", "".join(f"{one}\n" for one in tokens))
    with replacing(args.output / "decoder.pth") as part:
        torch.save(parameters, part)
    conf = {"decoder": "cif_whisper", "decoder_conf": options}
    write_text(args.output / "config.yaml", yaml.safe_dump(conf))
    write_text(mark, made_by)
    sizes = ", ".join(f"{name}: {value}" for name, value in options.items())
    log(f"{args.output}: {len(tokens)} tokens; decoder_conf: {{{sizes}}}")


def _made_by(args: argparse.Namespace) -> str:
    for path in args.text:
        if not path.is_file():
            raise UserError(f"--text {path}: there is no such file")
    return json.dumps(
        {
            "model": weights_digest(args.model),
            "text": [sha256(path) for path in args.text],
            "pieces": args.pieces,
            "language": args.language,
        }
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
