"""Files that the units of soft labels need: token lists and sentencepiece models."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import lock
from espnet_cif_hkd.io.atomic import replacing
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages import tokens
from espnet_cif_hkd.recipe.unit_lm import STAGE

_TOKEN_LIST = "tokens.txt"
# Units whose token list has the characters or words of a text.
WRITTEN_UNITS = ("char", "word")


def make_bpe(run: Run, model: Path, n_units: int, texts: Sequence[Path]) -> None:
    """Train a sentencepiece model and write its token list, by stage 5.

    The user's own model stays unchanged.

    Args:
        run: The recipe, after stage 4.
        model: ``bpe.model`` in a folder of its own.
        n_units: Number of units.
        texts: Kaldi text files that the model learns.

    Raises:
        UserError: The file has another name, or sentencepiece failed.
    """
    folder = model.parent
    if model.is_file() and not (folder / ".done-5").exists():
        return
    if model.name != "bpe.model":
        raise UserError(f"{model}: a model that this command makes is bpe.model")
    own = Run(
        replace(run.options, token_type="bpe", nbpe=n_units),
        replace(
            run.paths,
            bpedir=folder,
            bpemodel=str(model),
            token_list=folder / _TOKEN_LIST,
            bpe_train_text=" ".join(map(str, texts)),
        ),
        run.arguments,
    )
    if tokens.up_to_date(own):
        log(f"{folder}: up to date")
    else:
        tokens.make_token_list(own)


def make_vocabulary(run: Run, unit: str, path: Path, text: Path) -> None:
    """Write the characters or words of a text as a token list, as stage 5 does.

    The user's own list stays unchanged.

    Args:
        run: The recipe, for the cleaning of the text and the special tokens.
        unit: ``char`` or ``word``.
        path: ``tokens.txt`` in a folder of its own.
        text: Kaldi text file.

    Raises:
        UserError: The file has another name, or ESPnet's command failed.
    """
    if is_foreign(path):
        return
    if path.name != _TOKEN_LIST:
        raise UserError(
            f"{path}: a token list that this command makes is {_TOKEN_LIST}"
        )
    options = replace(run.options, token_type=unit)
    mark = tokens.settings_mark(options).files(text, options.nlsyms_txt)

    def write() -> None:
        with replacing(path) as part:
            tokens.write_vocabulary(text, part, options)
            tokens.read_token_list(part)

    make(path.parent, mark, [path.name], write)


def is_foreign(path: Path) -> bool:
    """Whether a file was not made by this command, so that it must not change."""
    markers = (f".{state}-{STAGE}" for state in ("done", "incomplete"))
    return path.is_file() and not any((path.parent / one).exists() for one in markers)


def make(
    folder: Path,
    mark: stamps.Fingerprint,
    needs: Sequence[str],
    step: Callable[[], None],
) -> None:
    """Run a step, unless its files are up to date; one process at a time.

    Args:
        folder: Where the step writes. It belongs to this step alone.
        mark: Fingerprint of its inputs.
        needs: Names of the files that it makes.
        step: Makes them.
    """
    fingerprint = mark.hexdigest()
    with lock.alone(folder / ".prepare.lock", log):
        if stamps.is_done(folder, STAGE, fingerprint, needs):
            log(f"{folder}: up to date")
            return
        log(f"{folder}: making {', '.join(needs)}")
        stamps.begin(folder, STAGE)
        step()
        stamps.finish(folder, STAGE, fingerprint)
