"""Checks of data and model before stage 10."""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io.audio import check_channels, read_utterance
from espnet_cif_hkd.io.disk import require_space
from espnet_cif_hkd.io.log import log, progress
from espnet_cif_hkd.io.tables import (
    first_few,
    read_table,
)
from espnet_cif_hkd.recipe import dropped
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.checks.criteria import check_criteria
from espnet_cif_hkd.recipe.checks.texts import check_texts
from espnet_cif_hkd.recipe.checks.trained import check_parameters
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages.filter_data import DUMP_FILES
from espnet_cif_hkd.recipe.stages.tokens import check_restored, read_token_list


def check_token_list(run: Run) -> list[str]:
    """Return the token list; compare it with that of a checkpoint to resume.

    Raises:
        UserError: the list is missing or malformed, or differs from that of the
            experiment folder.
    """
    paths, options = run.paths, run.options
    tokens = read_token_list(paths.token_list)
    if tokens[0] != options.blank or tokens[-1] != options.sos_eos:
        raise UserError(
            f"{paths.token_list} must begin with {options.blank} and end with "
            f"{options.sos_eos}: {_other_tokens(run)}"
        )
    config = paths.asr_exp / "config.yaml"
    checkpoints = list(paths.asr_exp.glob("*.pth"))
    if config.is_file() and checkpoints:
        import yaml

        trained = yaml.safe_load(config.read_text(encoding="utf-8")).get("token_list")
        if isinstance(trained, list) and list(map(str, trained)) != tokens:
            raise UserError(
                f"{paths.token_list} ({len(tokens)} tokens) differs from the token "
                f"list of {checkpoints[0]} ({len(trained)} tokens): restore the token "
                "list, or train under another --asr_tag"
            )
    return tokens


def _other_tokens(run: Run) -> str:
    if run.options.token_type == "hugging_face":
        return (
            f"the tokenizer {run.paths.bpemodel} has other symbols; local/wordpiece.py "
            "of egs2/librispeech makes one that has them of a BERT's WordPieces"
        )
    return f"run stage 5 {stamps.AGAIN}"


def check_audio(folder: Path) -> None:
    """Open every recording of a dump folder; decode those that stage 3 did not check.

    Raises:
        UserError: a file is missing, corrupt, empty or contains NaN, its length differs
            from ``utt2num_samples``, or the numbers of channels differ.
    """
    scp, counts = read_table(folder / "wav.scp"), read_table(folder / "utt2num_samples")
    text = read_table(folder / "text")
    for name, keys in (("text", text), ("utt2num_samples", counts)):
        missing = [key for key in scp if key not in keys]
        if missing:
            raise UserError(
                f"{folder / name} lacks {first_few(missing)}: run stages 3 and 4 "
                f"{stamps.AGAIN}"
            )
    origin = folder.parent / "org" / folder.name
    read_by_stage_3 = any((place / ".done-3").is_file() for place in (folder, origin))

    def look(item: tuple[str, str]) -> int:
        utterance, path = item
        if not read_by_stage_3:
            sound = read_utterance(utterance, path)
            length, channels = len(sound.samples), sound.channels
        else:
            try:
                header = soundfile.info(path)
                length, channels = header.frames, header.channels
            except (RuntimeError, OSError) as error:
                fault = f"corrupt: run stage 3 {stamps.AGAIN}"
                if not os.path.exists(path):
                    fault = "missing: run stage 3 again"
                raise UserError(
                    f"audio of {utterance} cannot be read: {path} is {fault}"
                ) from error
        if length != int(counts[utterance]):
            raise UserError(
                f"{path} has {length} samples, {folder}/utt2num_samples says "
                f"{counts[utterance]}: run stage 3 {stamps.AGAIN}"
            )
        return channels

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done = pool.map(look, scp.items())
        found = list(progress(done, len(scp), f"checking the audio of {folder}"))
    check_channels(dict(zip(scp, found)), folder)


def check_model(run: Run, args: argparse.Namespace) -> None:
    """Build the model, and check that its checkpoints fit on the disk."""
    from espnet2.tasks.asr import ASRTask

    options = dict(vars(args))
    if args.normalize == "global_mvn":
        # Stage 10 makes the statistics.
        options.update(normalize=None, normalize_conf={})
    try:
        model = ASRTask.build_model(argparse.Namespace(**options))
    except UserError:
        raise
    except Exception as error:
        reason = one_line(error, 300)
        raise UserError(
            f"--asr_config {run.options.asr_config}: the model cannot be built: "
            f"{type(error).__name__}: {reason}"
        ) from error
    check_parameters(run.paths.asr_exp, args, model)
    parameters = sum(p.numel() for p in model.parameters())
    kept = args.keep_nbest_models
    best = max(kept) if isinstance(kept, list) else int(kept)
    # The n best epochs, the latest one and the next one, an average for each criterion,
    # and the checkpoint (parameters and two moments), which exists twice while written.
    copies = best + 2 + len(args.best_model_criterion) + 6
    room = parameters * 4 * copies + 64 * 2**20
    require_space(run.paths.asr_exp, room, "stage 11 (checkpoints)")
    log(f"preflight: the model has {parameters:,} parameters")


def check_data(run: Run, args: argparse.Namespace) -> None:
    """Run all checks that need the data of stages 1 to 5.

    Raises:
        UserError: a check failed.
    """
    options = run.options
    check_criteria(args, check_token_list(run), options.token_type, options.asr_config)
    check_restored(run)
    folders = [dropped.data_folder(run, part) for part in dropped.PARTS]
    for folder in folders:
        stamps.require(folder, 4, DUMP_FILES)
        check_audio(folder)
    if 12 in run.stages:
        for name in run.options.test_sets.split():
            folder = run.paths.data_feats / name
            stamps.require(folder, 3, DUMP_FILES)
            check_audio(folder)
    for part in dropped.PARTS:
        check_texts(run, args, part)
    check_model(run, args)
