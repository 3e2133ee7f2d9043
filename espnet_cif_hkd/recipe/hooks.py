"""What the recipe engine asks of models, criteria and teachers.

This module and :mod:`espnet_cif_hkd.recipe.checks.criteria` are the only
ones of the engine that import them.
"""

import argparse
from contextlib import suppress
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.commands import logged_to
from espnet_cif_hkd.recipe.context import Run


def dump_teacher(run: Run, args: argparse.Namespace) -> None:
    """Store the targets of all training texts, if a criterion names a store.

    What a store has already is kept: an interrupted dump goes on.

    Args:
        run: The run, after stage 5.
        args: Of the training: ``--asr_config`` with the changes of ``--asr_args``.

    Raises:
        UserError: A teacher or a store does not fit.
    """
    from espnet_cif_hkd.distill.filling import fill_stores, stores

    folders = [folder for _, folder in stores(args.model_conf or {})]
    if not folders:
        return
    options, paths = run.options, run.paths
    log(f"storing the teacher's features in {', '.join(folders)}")
    tokens = {
        "token_list": str(paths.token_list),
        "token_type": options.token_type,
        "bpemodel": paths.bpemodel,
        "cleaner": options.cleaner,
        "g2p": options.g2p,
        "non_linguistic_symbols": options.nlsyms_txt,
    }
    texts = [paths.train_dir / "text", paths.data_feats / options.valid_set / "text"]
    with logged_to(paths.asr_exp / "dump_teacher.log", "teacher's features"):
        fill_stores(vars(args), options.asr_config, tokens, texts)


def teacher_inputs(run: Run, args: argparse.Namespace) -> list[Path]:
    """The files of teachers and stores that a training reads, for its fingerprint.

    Args:
        run: the run.
        args: of the training, of which only ``model_conf`` is needed.

    Returns:
        Folders of teachers on this machine and headers of stores. A teacher that is
        named by hub name and revision has none here.
    """
    conf = args.model_conf or {}
    found: list[Path] = []
    for criterion in (
        conf.get("criterion_conf"),
        *(conf.get("criteria") or {}).values(),
    ):
        if not isinstance(criterion, dict) or not criterion.get("teacher"):
            continue
        from espnet_cif_hkd.teachers.text.plm import resolve_teacher

        if criterion.get("teacher_store"):
            found.append(Path(str(criterion["teacher_store"])) / "header.json")
        with suppress(UserError):  # the checks before training report it
            place = Path(resolve_teacher(str(criterion["teacher"])))
            found += [place] if place.is_dir() else []
    return found


def trained_by(checkpoint: Path) -> str | None:
    """The version of this package that trained a model; None if it is not recorded."""
    import torch

    from espnet_cif_hkd.models.checkpoint import made_by

    return made_by(
        torch.load(str(checkpoint), map_location="cpu", weights_only=True, mmap=True)
    )
