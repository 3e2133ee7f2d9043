"""Store a teacher's vectors for all sentences of some transcripts.

Sentences are tokenised by ESPnet's own preprocessor, so that the training finds
them by their token ids. A second run adds what is missing.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_cif_hkd.cli.dump_teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--asr_config", type=Path, help="training configuration, conf/*.yaml"
    )
    source.add_argument(
        "--train_config",
        type=Path,
        help="config.yaml of an experiment; it also gives the token options",
    )
    parser.add_argument(
        "--text", type=Path, nargs="+", required=True, help="Kaldi text files"
    )
    parser.add_argument(
        "--store", type=Path, help="folder to fill (default: the configuration's)"
    )
    parser.add_argument("--token_list", type=Path, help="tokens.txt")
    parser.add_argument(
        "--token_type", help="char, bpe, word or hugging_face, as in training"
    )
    parser.add_argument("--bpemodel")
    parser.add_argument("--cleaner")
    parser.add_argument("--g2p")
    parser.add_argument("--non_linguistic_symbols")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    parser.add_argument(
        "--shard_mib", type=float, default=64, help="about the size of one file"
    )
    return parser


def read_config(path: Path) -> dict[str, Any]:
    """The options of a YAML file.

    Raises:
        UserError: it cannot be read or is not a mapping.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.safe_load(f)
    except (OSError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read ({' '.join(str(e).split())})") from e
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no options")
    return config


def criterion_conf(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """``model_conf.criterion_conf`` of a training configuration.

    Raises:
        UserError: the configuration has no HKD criterion.
    """
    model_conf = config.get("model_conf") or {}
    if str(model_conf.get("criterion")).lower() != "hkd":
        raise UserError(
            f"{path}: model_conf.criterion is {model_conf.get('criterion')!r}, so it "
            "needs no teacher; name a configuration with criterion: hkd"
        )
    return dict(model_conf.get("criterion_conf") or {})


def read_sentences(paths: Sequence[Path]) -> Iterator[str]:
    """The transcripts of Kaldi text files, as ESPnet reads them.

    Raises:
        UserError: a file cannot be read.
    """
    for path in paths:
        try:
            with open(path, encoding="utf-8") as f:
                for line in f:
                    _, *text = line.rstrip().split(maxsplit=1) or [""]
                    yield text[0] if text else ""
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{path}: cannot be read ({e})") from e


def run(args: argparse.Namespace) -> None:
    """Do what the options say.

    Raises:
        UserError: something in the options or files is wrong.
    """
    path = args.train_config or args.asr_config
    config = read_config(path)
    conf = criterion_conf(config, path)
    folder = args.store or conf.get("teacher_store")
    if not folder:
        raise UserError(
            f"{path}: criterion_conf.teacher_store is not set; set it, or use --store"
        )
    for text in args.text:
        if not text.is_file():
            raise UserError(f"{text}: this text file does not exist")
    tokens = _token_options(args, config if args.train_config else {})
    preprocessor_conf = dict(config.get("preprocessor_conf") or {})
    if config.get("preprocessor", "default") != "default":
        raise UserError(
            f"{path}: preprocessor {config['preprocessor']} is not supported here; "
            "use teacher_store: null"
        )

    import torch
    from espnet2.train.preprocessor import CommonPreprocessor

    from espnet_cif_hkd.distill.check import check_teacher
    from espnet_cif_hkd.teachers.registry import build_text_teacher
    from espnet_cif_hkd.teachers.store.writer import dump_store
    from espnet_cif_hkd.teachers.text.online import OnlineTeacher

    token_list, token_type = tokens["token_list"], tokens["token_type"]
    conf["teacher_store"] = str(folder)
    if check_teacher(conf, token_list, token_type) is None:
        logging.info("%s: both weights are 0, so nothing is to be stored", path)
        return
    preprocessor = CommonPreprocessor(train=False, **tokens, **preprocessor_conf)

    def sequences() -> Iterator[Sequence[int]]:
        for text in read_sentences(args.text):
            yield preprocessor("text", {"text": text})["text"].tolist()

    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # As the criterion of the training, which does not know --token_type.
    teacher = build_text_teacher(conf, token_list, conf.get("token_type"), stored=False)
    begin = time.monotonic()
    report = dump_store(
        Path(folder),
        sequences,
        teacher,
        torch.device(device),
        shard_bytes=int(args.shard_mib * 2**20),
    )
    if isinstance(teacher, OnlineTeacher) and teacher.n_unknown:
        logging.warning(
            "teacher %s does not know %d words of the new sentences: %s",
            teacher.config.name,
            teacher.n_unknown,
            " ".join(sorted(teacher.unknown)[:20]),
        )
    if isinstance(teacher, OnlineTeacher) and teacher.n_unk:
        logging.warning(
            "%d tokens of the new sentences are <unk>; the teacher reads them as its "
            "own unknown token",
            teacher.n_unk,
        )
    logging.info(
        "%s: %d sentences (%d tokens) added in %.0f s",
        folder,
        report.n_sentences,
        report.n_tokens,
        time.monotonic() - begin,
    )


def _token_options(args: argparse.Namespace, trained: dict[str, Any]) -> dict[str, Any]:
    """Options of ESPnet's preprocessor, from the command line or an experiment."""

    def option(name: str) -> Any:
        value = getattr(args, name)
        value = trained.get(name) if value is None else value
        return None if str(value).lower() in ("none", "null", "nil", "") else value

    token_list = option("token_list")
    if token_list is None:
        raise UserError("--token_list is needed beside --asr_config")
    if isinstance(token_list, (str, Path)):
        try:
            # As ESPnet's ASR task reads it.
            with open(token_list, encoding="utf-8") as f:
                token_list = [line.rstrip() for line in f]
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{token_list}: cannot be read ({e})") from e
    if "<unk>" not in token_list:
        raise UserError("the token list has no <unk>; name ESPnet's tokens.txt")
    token_type = option("token_type")
    if token_type is None:
        raise UserError("--token_type is needed: char, bpe, word or hugging_face")
    bpemodel = option("bpemodel")
    if token_type in ("bpe", "hugging_face") and bpemodel is None:
        raise UserError(f"--bpemodel is needed for --token_type {token_type}")
    if token_type == "bpe" and not Path(bpemodel).is_file():
        raise UserError(f"--bpemodel {bpemodel}: this file does not exist")
    return {
        "token_list": token_list,
        "token_type": token_type,
        "bpemodel": bpemodel,
        "text_cleaner": option("cleaner"),
        "g2p_type": option("g2p"),
        "non_linguistic_symbols": option("non_linguistic_symbols"),
    }


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; exits with status 1 after one line for a user's error."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s"
    )
    try:
        run(args)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
