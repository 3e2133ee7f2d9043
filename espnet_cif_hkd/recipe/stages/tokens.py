"""Stage 5: the token list (and the sentencepiece model)."""

import itertools
import os
from collections import Counter
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import replacing, write_text
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import read_lines, read_table, single_spaced
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.commands import call, failed, logged_to
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.options import Options


def read_token_list(path: str | Path) -> list[str]:
    """Read the tokens of ``tokens.txt``.

    Raises:
        UserError: the file is missing, has a token twice, or fewer than four.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: run stage 5 first")
    with path.open(encoding="utf-8") as stream:
        tokens = [line.rstrip() for line in stream]
    if len(tokens) < 4:
        raise UserError(f"{path} has {len(tokens)} tokens: run stage 5 {stamps.AGAIN}")
    twice = sorted(token for token, count in Counter(tokens).items() if count > 1)
    if twice:
        raise UserError(f"{path} has {twice[0]!r} twice: run stage 5 {stamps.AGAIN}")
    return tokens


def _word_or_char(run: Run, part: Path) -> None:
    stamps.require(run.paths.data_feats, 4, ["lm_train.txt"])
    write_vocabulary(run.paths.data_feats / "lm_train.txt", part, run.options)


def write_vocabulary(text: Path, target: Path, options: Options) -> None:
    """Write the characters or words of a Kaldi text file, most frequent first.

    Args:
        text: The text file; names come first in each line.
        target: The token list. ``tokenize_text.log`` is written beside it.
        options: Token type, special tokens and the cleaning of the text.

    Raises:
        UserError: ESPnet's command failed.
    """
    call(
        "espnet2.bin.tokenize_text",
        [
            *("--token_type", options.token_type),
            *("--input", str(text), "--output", str(target)),
            *("--non_linguistic_symbols", options.nlsyms_txt),
            *("--field", "2-", "--cleaner", options.cleaner, "--g2p", options.g2p),
            *("--write_vocabulary", "true"),
            *("--add_symbol", f"{options.blank}:0"),
            *("--add_symbol", f"{options.oov}:1"),
            *("--add_symbol", f"{options.sos_eos}:-1"),
        ],
        target.with_name("tokenize_text.log"),
        "stage 5",
    )


def _bpe_text(run: Run) -> str:
    lines: list[list[str]] = []
    for name in run.paths.bpe_train_text.split():
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"--bpe_train_text {name} is missing: run stages 3 and 4, or name "
                f"an existing text file, such as "
                f"data/{run.paths.source_train_set}/text"
            )
        lines += [single_spaced(line).split(" ", 1)[1:] for line in read_lines(path)]
    return "".join(f"{line}\n" for words in lines for line in words)


def _user_symbols(value: str) -> list[str]:
    if os.path.isfile(value):
        return [line.split()[0] for line in read_lines(Path(value)) if line.split()]
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
    # The first three pieces, <unk>, <s> and </s>, have other names in the token list.
    pieces = [line.split("\t")[0] for line in read_lines(folder / "bpe.vocab")[3:]]
    tokens = [options.blank, options.oov, *pieces, options.sos_eos]
    write_text(part, "".join(f"{token}\n" for token in tokens))


def _hugging_face(run: Run, part: Path) -> None:
    name = run.options.hugging_face_model_name_or_path
    call(
        "espnet2.bin.hugging_face_export_vocabulary",
        ["--model_name_or_path", name, "--output", str(part)],
        part.with_name("export_vocabulary.log"),
        "stage 5",
    )


def check_restored(run: Run, most: int = 2000) -> None:
    """Check that a Hugging Face tokenizer restores texts.

    Hypotheses are joined from tokens, references are not: BERT's own tokenizer changes
    DON'T to "don ' t", so every such word would count as an error.

    Args:
        run: the run; with another token type there is nothing to check.
        most: largest number of training texts to check.

    Raises:
        UserError: more than 1 % of the texts change, apart from case.
    """
    if run.options.token_type != "hugging_face":
        return
    from espnet2.text.hugging_face_tokenizer import HuggingFaceTokenizer

    name = run.paths.bpemodel
    tokenizer = HuggingFaceTokenizer(name)
    text = read_table(run.paths.train_dir / "text")
    changed, seen = [], min(most, len(text))
    for utterance, words in itertools.islice(text.items(), most):
        restored = tokenizer.tokens2text(tokenizer.text2tokens(words))
        if restored.lower() != " ".join(words.lower().split()):
            changed.append(f"{utterance} to {restored!r}")
    if changed:
        found = (
            f"the tokenizer {name} changes {len(changed)} of {seen} texts, such "
            f"as that of {changed[0]}"
        )
        if 100 * len(changed) > seen:
            raise UserError(
                f"{found}, which stage 13 would count as errors: use one that cuts at "
                "white space only; local/wordpiece.py of egs2/librispeech makes such a "
                "one of a BERT's WordPieces"
            )
        log(f"preflight: {found}")


_MAKERS = {
    "bpe": _bpe,
    "char": _word_or_char,
    "word": _word_or_char,
    "hugging_face": _hugging_face,
}


def make_token_list(run: Run) -> None:
    """Stage 5: write the token list, and the sentencepiece model for bpe."""
    folder = run.paths.token_list.parent
    stamps.begin(folder, 5)
    with replacing(run.paths.token_list) as part:
        _MAKERS[run.options.token_type](run, part)
        tokens = read_token_list(part)
    stamps.finish(folder, 5, fingerprint(run))
    log(f"stage 5: {len(tokens)} tokens in {run.paths.token_list}")


def tokenizer_files(run: Run) -> list[Path]:
    """Return the files of the tokenizer, without the token list.

    These are the sentencepiece model, the files in the folder of a Hugging Face
    tokenizer (none for a hub name), or none.
    """
    path = Path(run.paths.bpemodel)
    if run.options.token_type == "bpe":
        return [path]
    if run.options.token_type == "hugging_face" and path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    return []


def settings_mark(options: Options) -> stamps.Fingerprint:
    """Begin the fingerprint of a token list: token type, cleaning, special tokens."""
    return stamps.Fingerprint().words(
        *(options.token_type, options.cleaner, options.g2p, options.nlsyms_txt),
        *(options.blank, options.oov, options.sos_eos),
    )


def fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 5."""
    options = run.options
    mark = settings_mark(options)
    if options.token_type == "bpe":
        mark.words(options.nbpe, options.bpemode, options.bpe_char_cover)
        mark.words(options.bpe_input_sentence_size, options.bpe_nlsyms)
        mark.files(*run.paths.bpe_train_text.split())
        if os.path.isfile(options.bpe_nlsyms):
            mark.files(options.bpe_nlsyms)
    else:
        mark.files(run.paths.data_feats / "lm_train.txt")
    if options.token_type == "hugging_face":
        mark.words(run.paths.bpemodel)
        mark.files(*tokenizer_files(run))
    return mark.files(options.nlsyms_txt).hexdigest()


def up_to_date(run: Run) -> bool:
    """Whether a run with ``--reuse true`` can skip stage 5."""
    needs = ["tokens.txt"] + (["bpe.model"] if run.options.token_type == "bpe" else [])
    return stamps.is_done(run.paths.token_list.parent, 5, fingerprint(run), needs)
