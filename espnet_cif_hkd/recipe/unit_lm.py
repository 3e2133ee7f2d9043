"""Train a language model of any unit by ESPnet's ``lm_train``, as a teacher.

The units of a sentence are words for ESPnet, so phones, characters, sub-words and
states need no code of their own.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import lock
from espnet_cif_hkd.io.atomic import write_text, writer
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.checks import named_files, stamps
from espnet_cif_hkd.recipe.checks.config import check_yaml, lm_training_args
from espnet_cif_hkd.recipe.checks.trained import check_same_model, check_tokens
from espnet_cif_hkd.recipe.commands import rotate, train_model

MODEL = "valid.loss.ave.pth"
PARTS = ("train", "valid")
# Number of its markers: asr.sh has stage 9 for models that this package does not use.
STAGE = 9
_CRITERION = ["valid", "loss", "min"]
_FOLD_LENGTH = "150"

Sentences = Callable[[], Iterable[Sequence[str]]]


@dataclass(frozen=True)
class UnitLM:
    """A language model to train.

    Attributes:
        folder: experiment folder, ``lm`` of a level.
        token_list: labels of the unit in ESPnet's order.
        config: YAML file for ``lm_train``; empty: ESPnet's defaults.
        more: further words for ``lm_train``.
        ngpu: number of GPUs.
    """

    folder: Path
    token_list: Sequence[str]
    config: str = ""
    more: str = ""
    ngpu: int = 0


def train_unit_lm(
    lm: UnitLM, train: Sentences, valid: Sentences, inputs: stamps.Fingerprint
) -> bool:
    """Train a language model, or continue an interrupted training.

    Args:
        lm: the language model.
        train, valid: functions that return the labels of all sentences; sentences
            without labels are left out.
        inputs: fingerprint of the texts and of the unit.

    Returns:
        Whether it was trained; False: it was up to date.

    Raises:
        UserError: an option or the text is wrong, the folder has another model, or
            ESPnet failed.
    """
    folder = lm.folder
    if not (folder / f".done-{STAGE}").exists() and _is_foreign(folder):
        log(f"{folder}: a language model that was not made here; used without changes")
        return False
    _check_labels(lm)
    check_yaml("lm_config", lm.config)
    config = [lm.config] if lm.config else []
    named = [*named_files.in_options(lm.more), *named_files.in_config(lm.config)]
    mark = inputs.words(*lm.token_list, lm.more).files(*config, *named).hexdigest()
    with lock.alone(folder / ".train.lock", log):
        if stamps.is_done(folder, STAGE, mark, ["config.yaml", MODEL]):
            log(f"{folder}: the language model is up to date")
            return False
        args = _check_options(lm)
        tokens = folder / "text" / "tokens.txt"
        write_text(tokens, "".join(f"{token}\n" for token in lm.token_list))
        check_tokens(folder, tokens, "out_dir")
        check_same_model(folder, args, "out_dir")
        texts = zip(PARTS, (train, valid), strict=True)
        data = " ".join([_write(lm, part, sentences) for part, sentences in texts])
        stamps.require_same_data(folder, STAGE, data, "out_dir")
        stamps.begin(folder, STAGE, data)
        _train(lm, tokens)
        stamps.finish(folder, STAGE, mark, data)
    return True


def _is_foreign(folder: Path) -> bool:
    """Whether another program trained the model in a folder."""
    begun = (folder / f".incomplete-{STAGE}").exists()
    return not begun and (folder / "config.yaml").is_file()


def _check_labels(lm: UnitLM) -> None:
    """Refuse labels that ESPnet would split; it reads units like words.

    Raises:
        UserError: a label contains white space.
    """
    for label in lm.token_list:
        if label.split() != [label]:
            raise UserError(
                f"{lm.folder}: the label {label!r} of the unit contains white space, "
                "which separates labels for ESPnet: use a unit without it"
            )


def _check_options(lm: UnitLM) -> argparse.Namespace:
    """Return the arguments of ESPnet's training.

    Raises:
        UserError: an option is wrong, or the best model is not kept.
    """
    args = lm_training_args(lm.config, lm.more)
    args.token_type = "word"
    criteria = [list(map(str, one)) for one in args.best_model_criterion]
    if _CRITERION not in criteria:
        raise UserError(
            f"--lm_config {lm.config}: best_model_criterion must contain "
            f"{_CRITERION}: labels are made by {MODEL}"
        )
    return args


def _write(lm: UnitLM, part: str, sentences: Sentences) -> str:
    """Write text and shapes of ``train`` or ``valid``; return a hash of the text.

    Raises:
        UserError: the text has no labels.
    """
    digest, count = hashlib.sha256(), 0
    vocabulary = len(lm.token_list)
    with (
        writer(lm.folder / "text" / f"{part}.txt") as text,
        writer(lm.folder / "text" / f"{part}_shape.word") as shapes,
    ):
        for labels in sentences():
            if not labels:
                continue
            count += 1
            name, line = f"{part}-{count:09d}", " ".join(labels)
            text.write(f"{name} {line}\n")
            shapes.write(f"{name} {len(labels)},{vocabulary}\n")
            digest.update(f"{line}\n".encode())
    if not count:
        raise UserError(f"{lm.folder}: the text for {part} has no labels of the unit")
    return digest.hexdigest()


def _train(lm: UnitLM, tokens: Path) -> None:
    text, log_file = lm.folder / "text", lm.folder / "train.log"
    data = [
        word
        for part in PARTS
        for word in (
            *(f"--{part}_data_path_and_name_and_type", f"{text}/{part}.txt,text,text"),
            *(f"--{part}_shape_file", f"{text}/{part}_shape.word"),
        )
    ]
    rotate(log_file)
    log(f"{lm.folder}: training a language model, the log is {log_file}")
    train_model(
        "espnet2.bin.lm_train",
        [
            *("--use_preprocessor", "true", "--token_type", "word"),
            *("--token_list", str(tokens), "--bpemodel", "none", "--g2p", "none"),
            *("--cleaner", "none", "--non_linguistic_symbols", "none"),
            *("--ngpu", str(lm.ngpu), "--resume", "true"),
            *("--fold_length", _FOLD_LENGTH, "--output_dir", str(lm.folder)),
            *(["--config", lm.config] if lm.config else []),
            *data,
            *lm.more.split(),
        ],
        log_file,
        f"language model {lm.folder.name}",
        lm.ngpu,
    )
    stamps.require_model(lm.folder, STAGE, MODEL)
