"""Compute the disk and the batches of a training: what docs/scaling.md shows.

``python3 -m espnet_cif_hkd.cli.budget`` prints the tables for the paper's corpora, and
with ``--hours``, ``--utterances`` and ``--tokens`` those for another one.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from espnet_cif_hkd.cli.command import command_parser
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.contrastive import negatives_per_token
from espnet_cif_hkd.teachers.base import KEY_BYTES

BYTES_PER_VALUE = 2  # the store's float16
BYTES_PER_SENTENCE = KEY_BYTES + 8  # its hash and where its rows begin
PCM_PER_HOUR = 3600 * 16_000 * 2  # 16 bit at 16 kHz
SPEED_FACTORS = (0.9, 1.0, 1.1)
# Adam keeps two float32 numbers for each parameter, besides the parameter itself.
CHECKPOINT_BYTES, MODEL_BYTES = 12, 4
TEACHER_DIM = 768
NUM_NEGATIVES = 700

# LibriSpeech's held-out sets: words, characters with spaces and tokens of BPE 5,000
# from ESPnet's results, hours from the paper of the corpus.
HELD_OUT_HOURS, HELD_OUT_WORDS = 5.4 + 5.3 + 5.4 + 5.1, 210_269
CHARS_PER_WORD = 1_108_695 / HELD_OUT_WORDS
BPE_PER_WORD = 262_039 / HELD_OUT_WORDS
# BERT's uncased vocabulary on FOTAQ's training text, 34,317 words.
WORDPIECES_PER_WORD = 40_332 / 34_317
# LibriSpeech's own archives: bytes of the three training parts by their 960.9 hours.
FLAC_PER_HOUR = (6_387_309_499 + 23_049_477_885 + 30_593_501_606) / 960.9


def _with_projections(parameters: int, dim: int) -> int:
    """Add the two projections of ``dim`` to the teacher's width, with biases."""
    return parameters + 2 * (dim * TEACHER_DIM + TEACHER_DIM)


# The models of train_asr_cif_hkd.yaml: the paper's for AISHELL-1, LibriSpeech's with
# 5,000 BPE pieces.
PAPER_PARAMETERS = _with_projections(47_208_587, 256)
LIBRISPEECH_PARAMETERS = _with_projections(125_976_201, 512)


@dataclass(frozen=True)
class Corpus:
    """Sizes of a training set and of its corpus.

    Attributes:
        name: name in the tables.
        hours, utterances: size of the training set.
        other_hours: hours of the development and test sets together.
        archive_bytes: size of the downloaded archives.
        tokens: number of targets of the training set by unit, ``</s>`` included.
        parameters: number of parameters of the HKD model.
    """

    name: str
    hours: float
    utterances: int
    other_hours: float = 0.0
    archive_bytes: int = 0
    tokens: dict[str, float] = field(default_factory=dict)
    parameters: int = PAPER_PARAMETERS


def _librispeech(name: str, hours: float, utterances: int, archives: int) -> Corpus:
    words = hours * HELD_OUT_WORDS / HELD_OUT_HOURS
    per_word = {
        "characters": CHARS_PER_WORD,
        "BPE 5,000": BPE_PER_WORD,
        "WordPiece": WORDPIECES_PER_WORD,
    }
    tokens = {unit: words * n + utterances for unit, n in per_word.items()}
    return Corpus(
        *(name, hours, utterances, HELD_OUT_HOURS, archives, tokens),
        parameters=LIBRISPEECH_PARAMETERS,
    )


CORPORA = (
    # Tokens: mean of 1,911.38 in each of the 968 updates of an epoch (published log).
    Corpus(
        *("AISHELL-1", 150.85, 120_098, 18.0 + 10.0, 15_582_913_665),
        tokens={"characters": 1911.38 * 968},
    ),
    _librispeech("LibriSpeech 100 h", 100.6, 28_539, 7_714_963_540),
    _librispeech("LibriSpeech 960 h", 960.9, 281_241, 61_357_943_031),
)


def store_bytes(tokens: float, utterances: int, dim: int = TEACHER_DIM) -> float:
    """Size of a teacher store if no two utterances have the same text.

    Args:
        tokens: number of targets of the training set, ``</s>`` included.
        utterances: number of utterances of the training set.
        dim: width of the teacher's vectors.

    Returns:
        Bytes.
    """
    return tokens * dim * BYTES_PER_VALUE + utterances * BYTES_PER_SENTENCE


def checkpoint_bytes(parameters: int, kept: int) -> int:
    """Bytes of one training: checkpoint, kept models, the last one, the average."""
    return parameters * (CHECKPOINT_BYTES + MODEL_BYTES * (kept + 2))


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _table(head: Sequence[str], rows: list[str]) -> str:
    return "\n".join([_row(*head), _row(*["---"] * len(head)), *rows])


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def store_table(corpora: Sequence[Corpus], dim: int = TEACHER_DIM) -> str:
    """Markdown table: size of the teacher's vectors of each training set."""
    rows = []
    for corpus in corpora:
        for unit, tokens in corpus.tokens.items():
            size = store_bytes(tokens, corpus.utterances, dim)
            rows.append(
                _row(
                    *(corpus.name, unit, f"{tokens / 1e6:.2f} M"),
                    *(f"{size / corpus.hours / 1e6:.1f} MB", _gb(size)),
                )
            )
    head = ("training set", "units", "tokens with `</s>`", "an hour of speech", "store")
    return _table(head, rows)


def disk_table(corpora: Sequence[Corpus], kept: int = 10) -> str:
    """Markdown table: disk space of a run of each corpus, without the store."""
    slower = sum(1 / factor for factor in SPEED_FACTORS)
    rows = []
    for corpus in corpora:
        hours = corpus.hours + corpus.other_hours
        perturbed = (slower - 1) * corpus.hours * FLAC_PER_HOUR
        rows.append(
            _row(
                corpus.name,
                _gb(corpus.archive_bytes) if corpus.archive_bytes else "–",
                _gb(hours * PCM_PER_HOUR),
                _gb(hours * FLAC_PER_HOUR),
                f"+ {_gb(perturbed)}",
                _gb(checkpoint_bytes(corpus.parameters, kept)),
            )
        )
    head = (
        *("corpus", "archives", "as 16-bit wav", "dump/ as flac"),
        *("with speed perturbation", "one training in exp/"),
    )
    return _table(head, rows)


def batch_table(
    tokens: float, gpus: Sequence[int] = (1, 2, 4, 8, 16), count: int = NUM_NEGATIVES
) -> str:
    """Markdown table: the part of one update that each of several GPUs processes.

    Args:
        tokens: tokens of an update over all GPUs, ``</s>`` included.
        gpus: numbers of GPUs, one a row.
        count: ``num_negatives``.
    """
    rows = []
    for n in gpus:
        apart = round(tokens / n)
        rows.append(
            _row(
                *(n, f"{apart:,}", f"{negatives_per_token(apart, count):,}"),
                f"{negatives_per_token(round(tokens), count):,}",
            )
        )
    head = (
        *("GPUs", "tokens on each", "negatives of a token"),
        "with `share_negatives: true`",
    )
    return _table(head, rows)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, help="hours of the training set")
    parser.add_argument("--utterances", type=int, help="number of its utterances")
    parser.add_argument(
        "--tokens", type=float, help="tokens of its texts, without </s>"
    )
    parser.add_argument("--teacher_dim", type=int, default=TEACHER_DIM)
    parser.add_argument("--keep_nbest_models", type=int, default=10)
    parser.add_argument(
        "--tokens_per_update",
        type=float,
        default=1911.38,
        help="tokens of an update over all GPUs, </s> included (default: the paper's)",
    )
    return parser


def report(args: argparse.Namespace) -> str:
    """Return the three tables for the corpora of the command line.

    Raises:
        UserError: the description of a corpus is incomplete, or a number is impossible.
    """
    corpora: Sequence[Corpus] = CORPORA
    given = (args.hours, args.utterances, args.tokens)
    if any(value is not None for value in given):
        if any(value is None or value <= 0 for value in given):
            raise UserError(
                "a corpus of your own needs --hours, --utterances and --tokens, each "
                "more than 0"
            )
        tokens = {"its tokens": args.tokens + args.utterances}
        corpora = [Corpus("this one", args.hours, args.utterances, tokens=tokens)]
    for name in ("teacher_dim", "keep_nbest_models", "tokens_per_update"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1")
    return "\n\n".join(
        [
            store_table(corpora, args.teacher_dim),
            disk_table(corpora, args.keep_nbest_models),
            batch_table(args.tokens_per_update),
        ]
    )


def main(cmd: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(cmd)
    try:
        print(report(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
