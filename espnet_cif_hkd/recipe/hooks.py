"""Filling the teacher's store before the training needs it."""

import argparse
import importlib
from contextlib import suppress
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.commands import logged_to
from espnet_cif_hkd.recipe.context import Run


def dump_teacher(run: Run, args: argparse.Namespace) -> None:
    """Write the teacher's features of all training texts, if a store is configured.

    What the store has already is kept: an interrupted dump goes on.
    """
    conf = (args.model_conf or {}).get("criterion_conf") or {}
    if args.model != "cif" or not conf.get("teacher_store"):
        return
    import yaml

    options, paths = run.options, run.paths
    # What training will have: --asr_config with the changes of --asr_args.
    names = ("model_conf", "preprocessor", "preprocessor_conf")
    config = paths.asr_exp / "dump_teacher.yaml"
    write_text(
        config,
        yaml.safe_dump({name: getattr(args, name, None) for name in names}),
    )
    model = ["--bpemodel", paths.bpemodel] if paths.bpemodel != "none" else []
    log(f"storing the teacher's features in {conf['teacher_store']}")
    command = importlib.import_module("espnet_cif_hkd.cli.dump_teacher")
    words = [
        *("--asr_config", str(config)),
        *("--token_list", str(paths.token_list)),
        *("--token_type", options.token_type, *model),
        *("--cleaner", options.cleaner, "--g2p", options.g2p),
        *("--non_linguistic_symbols", options.nlsyms_txt),
        *("--text", str(paths.train_dir / "text")),
        str(paths.data_feats / options.valid_set / "text"),
        *("--store", str(conf["teacher_store"])),
    ]
    with logged_to(paths.asr_exp / "dump_teacher.log", "teacher's features"):
        command.run(command.get_parser().parse_args(words))


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
