"""Functions of models, criteria and teachers that the recipe engine uses.

Only this module and :mod:`espnet_cif_hkd.recipe.checks.criteria` of the engine import
models, criteria and teachers.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.commands import logged_to
from espnet_cif_hkd.recipe.context import Run

_MOST_WORKERS = 8  # each has its own copy of a speech teacher
# Files of the levels of soft_labels, and of text_only.
_FILES = (
    *("unit_token_list", "unit_bpemodel", "lexicon", "alignment"),
    *("text", "bpemodel"),
)


def dump_teacher(run: Run, args: argparse.Namespace) -> None:
    """Store the targets of all training data for the teachers that use a store.

    Targets that are already in the store are kept, so an interrupted dump continues.

    Args:
        run: The run, after stage 5.
        args: Arguments of the training: ``--asr_config`` with ``--asr_args``.

    Raises:
        UserError: A teacher or a store does not fit.
    """
    options, paths = run.options, run.paths
    fill_teachers(
        vars(args),
        options.asr_config,
        tokenizer_options(run),
        [paths.train_dir, paths.data_feats / options.valid_set],
        paths.asr_exp,
        workers=1 if options.ngpu else options.nj,
    )


def fill_teachers(
    config: Mapping[str, Any],
    source: str,
    tokens: Mapping[str, Any],
    folders: Sequence[Path],
    logs: Path,
    workers: int = 1,
) -> None:
    """Store the targets of a training for the teachers that use a store.

    Args:
        config: The training configuration.
        source: Its file, for messages.
        tokens: Options of the tokenizer by ESPnet's names.
        folders: Data folders of training and validation.
        logs: Folder of the logs.
        workers: Processes for the features of speech teachers, at most the CPUs.

    Raises:
        UserError: A teacher or a store does not fit.
    """
    from espnet_cif_hkd.distill.filling import fill_stores, stores
    from espnet_cif_hkd.distill.speech_filling import fill_speech_stores, speech_stores

    speech = [store for store in speech_stores(config) if store.folder]
    if speech:
        places = ", ".join(str(store.folder) for store in speech)
        log(f"storing the speech teacher's features in {places}")
        cpus = len(os.sched_getaffinity(0))
        with logged_to(logs / "dump_speech_teacher.log", "speech teacher"):
            fill_speech_stores(
                speech, folders, num_workers=max(1, min(workers, cpus, _MOST_WORKERS))
            )
    places = ", ".join(folder for _, folder in stores(config.get("model_conf") or {}))
    if places:
        log(f"storing the teacher's targets in {places}")
        texts = [folder / "text" for folder in folders]
        with logged_to(logs / "dump_teacher.log", "teacher's targets"):
            fill_stores(config, source, tokens, texts)


def tokenizer_options(run: Run) -> dict[str, str]:
    """Return the options of the recogniser's tokenizer by ESPnet's names."""
    options, paths = run.options, run.paths
    return {
        "token_list": str(paths.token_list),
        "token_type": options.token_type,
        "bpemodel": paths.bpemodel,
        "cleaner": options.cleaner,
        "g2p": options.g2p,
        "non_linguistic_symbols": options.nlsyms_txt,
    }


def teacher_options(
    model_conf: Mapping[str, Any],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the options of all criteria, then of their teachers and levels.

    Args:
        model_conf: Options of the model; what is malformed is left out.

    Yields:
        The place, such as ``criteria.lm: soft_labels, levels.phone``, and the options.
    """
    single = f"criterion: {model_conf.get('criterion')}"
    criteria = [(single, model_conf.get("criterion_conf"))]
    for name, options in (model_conf.get("criteria") or {}).items():
        kind = options.get("type") if isinstance(options, dict) else None
        criteria.append((f"criteria.{name}: {kind}", options))
    known = [(label, one) for label, one in criteria if isinstance(one, dict)]
    yield from known
    for label, options in known:
        for key in ("teachers", "levels"):
            several = options.get(key)
            for name, one in several.items() if isinstance(several, dict) else ():
                if isinstance(one, dict):
                    yield f"{label}, {key}.{name}", one


def teacher_inputs(run: Run, args: argparse.Namespace) -> list[Path]:
    """Return the files of teachers and stores of a training, for its fingerprint.

    Args:
        run: the run.
        args: ``frontend``, ``frontend_conf`` and ``model_conf`` of the training.

    Returns:
        Files or folders of teachers on this machine, headers of stores, and files of
        units and alignments; nothing for a teacher with hub name and revision. A
        language model with a store is in the header of the store.
    """
    from espnet_cif_hkd.distill.choices import configured

    conf = args.model_conf or {}
    found: list[Path] = []
    watched = set()  # teachers whose criteria name the files themselves
    with suppress(UserError):  # the checks before the training report it
        for item in configured(conf):
            files = item.cls.teacher_files(item.conf)
            found += files
            watched |= {str(item.conf["teacher"])} if files else set()
    criteria = [options for _, options in teacher_options(conf)]
    if args.frontend == "speech_teacher" and isinstance(args.frontend_conf, dict):
        criteria.insert(0, args.frontend_conf)
    for criterion in criteria:
        found += [Path(str(criterion[key])) for key in _FILES if criterion.get(key)]
        labels = criterion.get("label_store")
        name = criterion.get("teacher") or (None if labels else criterion.get("lm"))
        store = labels or (criterion.get("teacher_store") if name else None)
        if store:
            found.append(Path(str(store)) / "header.json")
        if not name:
            continue
        if str(name) in watched:
            continue
        from espnet_cif_hkd.teachers.source import resolve_teacher

        with suppress(UserError):  # the checks before the training report it
            place = Path(resolve_teacher(str(name)))
            found += [place] if place.is_dir() else []
    return found


def stale_stores(run: Run, args: argparse.Namespace) -> list[str]:
    """Return the stores that were made by other teachers, and are filled again.

    Args:
        run: the run; before stage 5 there are none.
        args: ``model_conf`` of the training.
    """
    from espnet_cif_hkd.distill.choices import configured
    from espnet_cif_hkd.recipe.stages.tokens import read_token_list

    found: list[str] = []
    if run.paths.token_list.is_file():
        with suppress(UserError):  # the checks before the training report it
            tokens = read_token_list(run.paths.token_list)
            for item in configured(args.model_conf or {}):
                found += item.cls.stale_stores(item.conf, tokens)
    return found


def teacher_folder(name: str, revision: str | None) -> Path | None:
    """Return the folder of a teacher on this machine; None if there is none."""
    from espnet_cif_hkd.teachers.source import local_folder

    return local_folder(name, revision)


def trained_by(checkpoint: Path) -> str | None:
    """Return the version of this package that trained a model; None if unknown."""
    import torch

    from espnet_cif_hkd.models.checkpoint import made_by

    return made_by(
        torch.load(str(checkpoint), map_location="cpu", weights_only=True, mmap=True)
    )
