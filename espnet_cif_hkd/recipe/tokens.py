"""Stage 5: the token list (and the sentencepiece model)."""

import os
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe import stamps
from espnet_cif_hkd.recipe.commands import call, failed, logged_to
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.kaldi_files import read_lines, write_text
from espnet_cif_hkd.recipe.log import log


def read_token_list(path: str | Path) -> list[str]:
    """The tokens of a ``tokens.txt``, checked for ESPnet's conventions.

    Raises:
        UserError: the file is missing, has a token twice, or does not begin with
            blank and end with sos/eos.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: run stage 5 first")
    with path.open(encoding="utf-8") as stream:
        tokens = [line.rstrip() for line in stream]
    if len(tokens) < 4:
        raise UserError(f"{path} has {len(tokens)} tokens: run stage 5 again")
    twice = sorted({token for token in tokens if tokens.count(token) > 1})
    if twice:
        raise UserError(f"{path} has {twice[0]!r} twice: run stage 5 again")
    return tokens


def _word_or_char(run: Run, part: Path) -> None:
    options, source = run.options, run.paths.data_feats / "lm_train.txt"
    stamps.require(run.paths.data_feats, 4, ["lm_train.txt"])
    call(
        "espnet2.bin.tokenize_text",
        [
            *("--token_type", options.token_type),
            *("--input", str(source), "--output", str(part)),
            *("--non_linguistic_symbols", options.nlsyms_txt),
            *("--field", "2-", "--cleaner", options.cleaner, "--g2p", options.g2p),
            *("--write_vocabulary", "true"),
            *("--add_symbol", f"{options.blank}:0"),
            *("--add_symbol", f"{options.oov}:1"),
            *("--add_symbol", f"{options.sos_eos}:-1"),
        ],
        part.with_name("tokenize_text.log"),
        "stage 5",
    )


def _bpe_text(run: Run) -> str:
    lines = []
    for name in run.paths.bpe_train_text.split():
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"--bpe_train_text {name} is missing: run stages 3 and 4, or name "
                f"an existing text file, such as "
                f"data/{run.paths.source_train_set}/text"
            )
        for line in read_lines(path):
            lines.append(line.split(" ", 1)[1] if " " in line else line)
    return "".join(f"{line}\n" for line in lines)


def _user_symbols(value: str) -> list[str]:
    path = Path(value)
    if value and path.is_file():
        return [line.split()[0] for line in read_lines(path) if line.split()]
    return [symbol for symbol in value.split(",") if symbol]


def _bpe(run: Run, part: Path) -> None:
    import sentencepiece

    options, folder = run.options, run.paths.bpedir
    write_text(folder / "train.txt", _bpe_text(run))
    log_file = folder / "spm_train.log"
    try:
        with logged_to(log_file, "stage 5"):
            sentencepiece.SentencePieceTrainer.Train(
                input=str(folder / "train.txt"),
                vocab_size=options.nbpe,
                model_type=options.bpemode,
                model_prefix=str(folder / "bpe"),
                character_coverage=options.bpe_char_cover,
                input_sentence_size=options.bpe_input_sentence_size,
                user_defined_symbols=_user_symbols(options.bpe_nlsyms),
                minloglevel=2,
            )
    except (RuntimeError, OSError) as error:
        raise failed(
            f"sentencepiece with --nbpe {options.nbpe}", log_file, error
        ) from (error)
    # The first three pieces are <unk>, <s> and </s>, which have names of their own.
    pieces = [line.split("\t")[0] for line in read_lines(folder / "bpe.vocab")[3:]]
    tokens = [options.blank, options.oov, *pieces, options.sos_eos]
    write_text(part, "".join(f"{token}\n" for token in tokens))


def make_token_list(run: Run) -> None:
    """Stage 5: write the token list, and for bpe the sentencepiece model."""
    folder = run.paths.token_list.parent
    stamps.begin(folder, 5)
    part = folder / "tokens.txt.part"
    part.unlink(missing_ok=True)
    (_bpe if run.options.token_type == "bpe" else _word_or_char)(run, part)
    tokens = read_token_list(part)
    os.replace(part, run.paths.token_list)
    stamps.finish(folder, 5, fingerprint(run))
    log(f"stage 5: {len(tokens)} tokens in {run.paths.token_list}")


def fingerprint(run: Run) -> str:
    """What the token list depends on."""
    options = run.options
    mark = stamps.Fingerprint().words(
        *(options.token_type, options.cleaner, options.g2p, options.nlsyms_txt),
        *(options.blank, options.oov, options.sos_eos),
    )
    if options.token_type == "bpe":
        mark.words(options.nbpe, options.bpemode, options.bpe_char_cover)
        mark.words(options.bpe_input_sentence_size, options.bpe_nlsyms)
        mark.files(*run.paths.bpe_train_text.split())
    else:
        mark.files(run.paths.data_feats / "lm_train.txt")
    return mark.files(options.nlsyms_txt).hexdigest()


def up_to_date(run: Run) -> bool:
    """Whether a run with ``--reuse true`` may skip stage 5."""
    needs = ["tokens.txt"] + (["bpe.model"] if run.options.token_type == "bpe" else [])
    return stamps.is_done(run.paths.token_list.parent, 5, fingerprint(run), needs)
