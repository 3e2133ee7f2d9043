"""Checks of the configuration files, before any stage runs."""

import argparse
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.plugin.preflight import (
    check_init_param,
    check_joint_network,
    check_repeated_keys,
)
from espnet_cif_hkd.plugin.registration import CIF_DECODERS
from espnet_cif_hkd.recipe import commands
from espnet_cif_hkd.recipe.checks.trained import check_same_model
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.options import STOCK_ENGINE
from espnet_cif_hkd.recipe.stages import train

_STREAMING_ENCODERS = ("contextual_block_conformer", "contextual_block_transformer")


def check_yaml(option: str, name: str) -> None:
    """Check that a configuration file exists and is a YAML mapping.

    Raises:
        UserError: it is not; the message has the option, the file and the line.
    """
    import yaml

    if not name:
        return
    if not os.path.isfile(name):
        raise UserError(f"--{option} {name}: there is no such file")
    try:
        text = Path(name).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise UserError(f"--{option} {name} is not YAML{place}: {what}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"--{option} {name} must contain 'name: value' lines")
    check_repeated_keys(option, name, text)


def _parse(
    parser: Callable[[], Any], arguments: list[str], options: str
) -> argparse.Namespace:
    """Parse options by ESPnet's parser; turn its error into one line."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            parsed: argparse.Namespace = parser().parse_args(arguments)
    except SystemExit as error:
        lines = [line for line in output.getvalue().splitlines() if line.strip()]
        reason = lines[-1] if lines else "no reason given"
        reason = reason.split("error: ", 1)[-1]
        raise UserError(f"{options}: {reason}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{options}: {error}") from error
    return parsed


def training_args(run: Run) -> argparse.Namespace:
    """Return the arguments of ``asr_train``: ``--asr_config`` with ``--asr_args``."""
    commands.import_espnet()
    from espnet2.bin.asr_train import get_parser

    options = " ".join(
        f"--{name} {getattr(run.options, name)}"
        for name in ("asr_config", "asr_args")
        if getattr(run.options, name)
    )
    return _parse(get_parser, train.training_arguments(run), options or "asr_train")


def _check_model(args: argparse.Namespace, run: Run) -> None:
    weight = (args.model_conf or {}).get("ctc_weight", 0.3)
    if args.model in ("cif", "transducer") and not 0 <= float(weight) < 1:
        raise UserError(
            f"model_conf.ctc_weight {weight}: 'model: {args.model}' adds CTC to its "
            "own loss, and ESPnet leaves the decoder out at 1: choose "
            "0 <= ctc_weight < 1"
        )
    if args.decoder == "transducer" and args.model != "transducer" and not run.stock:
        raise UserError(
            f"'decoder: transducer' with 'model: {args.model}' needs warprnnt_pytorch, "
            "which pip cannot install: set 'model: transducer', whose loss needs torch "
            f"only, or {STOCK_ENGINE}"
        )
    own = None
    if (args.model == "cif") != (args.decoder in CIF_DECODERS):
        own = "cif"
    elif args.model == "transducer" != args.decoder:
        own = "transducer"
    if own:
        raise UserError(
            f"'model: {args.model}' with 'decoder: {args.decoder}': "
            f"{own} works only with {own}, set both"
        )
    check_joint_network(args)
    if run.options.pretrained_model:
        path = run.options.pretrained_model.split(":")[0]
        if not os.path.isfile(path):
            raise UserError(f"--pretrained_model {path}: there is no such file")


def check_gpu(run: Run, args: argparse.Namespace | None) -> None:
    """Check that the requested GPUs exist.

    Raises:
        UserError: there are fewer GPUs; the message has the option.
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    training = {7, 8, 11} & set(run.stages)
    wanted = run.options.ngpu if training else 0
    if args is not None and 11 in run.stages:
        wanted = args.ngpu
    if wanted > found:
        raise UserError(
            f"--ngpu {wanted}, but {found} GPUs are visible here: give --ngpu {found}"
        )
    if run.options.gpu_inference and 12 in run.stages and not found:
        raise UserError(
            "--gpu_inference true, but no GPU is visible here: "
            "give --gpu_inference false"
        )


def check_config(run: Run) -> argparse.Namespace | None:
    """Check the configuration of all stages that will run.

    Returns:
        The arguments of the recogniser's training, if stage 10 or 11 will run.
    """
    options, stages = run.options, set(run.stages)
    if {6, 7} & stages:
        check_yaml("lm_config", options.lm_config)
    if 12 in stages:
        check_yaml("inference_config", options.inference_config)
    args = None
    if {10, 11} & stages:
        check_yaml("asr_config", options.asr_config)
        args = training_args(run)
        _check_model(args, run)
        check_init_param(args)
        if 11 in stages:
            check_same_model(run.paths.asr_exp, args, "asr_tag")
    if {6, 7} & stages:
        _check_lm(run)
    if 12 in stages:
        _check_inference(run, args)
    if args is not None or {7, 8, 12} & stages:
        check_gpu(run, args)
    return args


def lm_training_args(config: str, more: str) -> argparse.Namespace:
    """Return the arguments of ``lm_train``: a configuration file and further words.

    Raises:
        UserError: an option is unknown or wrong.
    """
    commands.import_espnet()
    from espnet2.bin.lm_train import get_parser

    required = ["--token_list", "none", "--output_dir", "none"]
    words = [*required, *(["--config", config] if config else []), *more.split()]
    return _parse(get_parser, words, f"--lm_config {config} --lm_args {more}")


def _check_lm(run: Run) -> None:
    args = lm_training_args(run.options.lm_config, run.options.lm_args)
    if 7 in run.stages:
        args.token_type = run.options.token_type
        check_same_model(run.paths.lm_exp, args, "lm_tag")


def _check_inference(run: Run, model: argparse.Namespace | None) -> None:
    commands.import_espnet()
    if run.options.use_streaming:
        from espnet2.bin.asr_inference_streaming import get_parser
    else:
        from espnet2.bin.asr_inference import get_parser

    options = run.options
    config = ["--config", options.inference_config] if options.inference_config else []
    named = f"--inference_config {options.inference_config}"
    required = [
        *("--output_dir", "none", "--data_path_and_name_and_type", "a,speech,sound"),
        *("--asr_train_config", "none", "--asr_model_file", "none"),
    ]
    words = options.inference_args.split()
    args = _parse(get_parser, [*required, *config, *words], named)
    if options.use_streaming or getattr(args, "streaming", False):
        _check_streaming(run, model)
    if options.batch_size == 1:
        return
    model = _configured(run, model)
    if getattr(model, "decoder", None) == "transducer":
        raise UserError(
            f"--batch_size {options.batch_size}: ESPnet decodes a transducer one "
            "utterance at a time: give --batch_size 1"
        )
    if not hasattr(args, "ctc_window_margin"):
        raise UserError(
            f"--batch_size {options.batch_size}: this ESPnet decodes one utterance at "
            "a time: give --batch_size 1"
        )


def _check_streaming(run: Run, model: argparse.Namespace | None) -> None:
    """Check that a model for streaming can decode block by block."""
    name = "--use_streaming true"
    if not run.options.use_streaming:
        name = "--streaming true of asr_inference"
    model = _configured(run, model)
    if model is None:
        return
    if model.decoder in CIF_DECODERS:
        raise UserError(
            f"{name}: 'decoder: {model.decoder}' cannot decode block by block in "
            "ESPnet's search: give false, or use espnet-cif transcribe --stream"
        )
    if run.options.use_streaming and model.encoder not in _STREAMING_ENCODERS:
        raise UserError(
            f"{name}: ESPnet streams only with {' or '.join(_STREAMING_ENCODERS)}, "
            f"this model has 'encoder: {model.encoder}'; give --use_streaming false"
        )


def _configured(
    run: Run, model: argparse.Namespace | None
) -> argparse.Namespace | None:
    """Return the arguments of the model: of this training, or of a trained model."""
    import yaml

    config = run.paths.asr_exp / "config.yaml"
    if model is None and config.is_file():
        model = argparse.Namespace(**yaml.safe_load(config.read_text(encoding="utf-8")))
    return model
