"""Write the text of speech with Whisper and its own decoder, to train on it.

The table has a line for each recording, its name and the text; recordings of more than
30 s are left out. An interrupted command continues.

  python3 -m espnet_cif_hkd.cli.whisper_text speech/ --model whisper-base \\
      --language en -o labels/text
  espnet-cif pseudo-labels speech/ --text labels/text --data_dir data/train \\
      -o data/train_pseudo
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.cli.result_options import add_audio, device_of
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.digest import weights_digest
from espnet_cif_hkd.io.disk import require_writable
from espnet_cif_hkd.io.log import log, progress

if TYPE_CHECKING:
    from espnet_cif_hkd.inference.inputs import Recording


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    add_audio(parser)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a Whisper of transformers"
    )
    parser.add_argument("--language", help="such as en; not for English-only models")
    parser.add_argument(
        "--before",
        default="",
        metavar="TEXT",
        help="a sentence whose manner Whisper keeps, e.g. in simplified Chinese",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="table of names and texts"
    )
    parser.add_argument("--channel", default="mean", help="mean, or a number from 0")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="recordings at a time (8)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="precision (float32); bfloat16 is fast on a CPU with AMX",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    return parser


def run(args: argparse.Namespace) -> None:
    """Write the table.

    Raises:
        UserError: An option is wrong, the model cannot be opened, the table is another
            model's, or no recording can be read.
    """
    from espnet_cif_hkd.inference.inputs import recordings
    from espnet_cif_hkd.inference.writers.speech import key
    from espnet_cif_hkd.teachers.speech.whisper_text import (
        WhisperText,
        require_whisper,
    )

    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size}: write 1 or more")
    require_writable(args.output.parent)
    require_whisper(args.model)
    done = _done(args)
    chosen = [one for one in recordings(args.audio) if key(one.name) not in done]
    if not chosen and done:
        log(f"{args.output}: {len(done)} recordings, is up to date")
        return
    model = WhisperText(
        args.model,
        language=args.language,
        before=args.before,
        dtype=args.dtype,
        device=device_of(args.device),
    )
    left_out: list[str] = []
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a", encoding="utf-8") as table:
        batches = _batches(args, chosen, model, left_out)
        for batch in batches:
            texts = model.texts([wave for _, wave in batch])
            for (one, _), text in zip(batch, texts, strict=True):
                table.write(f"{key(one.name)} {text}".rstrip() + "\n")
            table.flush()
    written = len(chosen) - len(left_out)
    if not written and not done:
        raise UserError(f"no text is written: {left_out[0]}")
    for reason in left_out[:3]:
        log(f"warning: left out: {reason}")
    log(
        f"{args.output}: {written + len(done)} recordings, {written} of them new, "
        f"{len(left_out)} left out"
    )


def _done(args: argparse.Namespace) -> set[str]:
    """Return the recordings of the table; remove a line that was not finished."""
    mark = args.output.with_name(f"{args.output.name}.made_by")
    made_by = json.dumps(
        {
            "model": weights_digest(args.model),
            **{name: getattr(args, name) for name in ("language", "channel", "dtype")},
            **({"before": args.before} if args.before else {}),
        }
    )
    if not args.output.is_file():
        write_text(mark, made_by + "\n")
        return set()
    if not mark.is_file() or mark.read_text(encoding="utf-8").strip() != made_by:
        raise UserError(
            f"-o {args.output}: is the text of another model, language, channel, "
            "dtype or --before: name another file, or remove it"
        )
    text = args.output.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        write_text(args.output, complete)
    return {line.split(maxsplit=1)[0] for line in complete.splitlines() if line}


def _batches(
    args: argparse.Namespace,
    chosen: "Sequence[Recording]",
    model: Any,
    left_out: list[str],
) -> "Iterator[list[tuple[Recording, Any]]]":
    """Yield recordings and their samples; name those that cannot be read."""
    from espnet_cif_hkd.inference.media import open_audio

    waiting: list[tuple[Recording, Any]] = []
    for one in progress(chosen, len(chosen), str(args.output)):
        try:
            with open_audio(one.path, model.rate, args.channel) as audio:
                if audio.duration > model.longest:
                    left_out.append(
                        f"{one.path}: {audio.duration:.1f} s, more than "
                        f"{model.longest:g}"
                    )
                    continue
                # Resampling may round the length up.
                wave = audio.samples()[: round(model.longest * model.rate)]
        except UserError as error:
            left_out.append(str(error))
            continue
        waiting.append((one, wave))
        if len(waiting) == args.batch_size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
