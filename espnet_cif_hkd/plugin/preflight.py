"""Checks of the arguments of ESPnet's training command, before it begins."""

import argparse
import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.yaml_keys import repeated_key

TRAINING_MODULE = "espnet2.bin.asr_train"
# Parts of a model between the audio and the output of the encoder.
_PARTS = ("frontend", "preencoder", "encoder")
# Options that change a training, but not the function that it trains.
_REGULARISING = ("drop", "stochastic_depth")


def check_command(arguments: Sequence[str]) -> None:
    """Check a command line of ``espnet2.bin.asr_train``.

    A command line that ESPnet does not accept is left to ESPnet.

    Raises:
        UserError: See :func:`check_arguments`.
    """
    from espnet2.tasks.asr import ASRTask

    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            args = ASRTask.get_parser().parse_args(list(arguments))
    except (SystemExit, Exception):
        return
    check_arguments(args)


def check_arguments(args: argparse.Namespace) -> None:
    """Check the parsed arguments of a training.

    Raises:
        UserError: A criterion does not fit them, an encoder has other options than the
            one that it starts from, or a transducer has no joint network.
    """
    if args.config and Path(args.config).is_file():
        text = Path(args.config).read_text(encoding="utf-8", errors="replace")
        check_repeated_keys("config", args.config, text)
    check_training(args)
    check_init_param(args)


def check_training(args: argparse.Namespace) -> None:
    """Check that criteria and decoder fit the other options of the training.

    Raises:
        UserError: An option does not fit.
    """
    from espnet_cif_hkd.distill.choices import configured

    check_joint_network(args)
    for item in configured(args.model_conf or {}):
        with item.naming():
            item.cls.check_training(item.conf, vars(args))


def check_repeated_keys(option: str, name: str, text: str) -> None:
    """Refuse a YAML file with the same key twice, such as two teachers of one name.

    Args:
        option: Option of the command that names the file.
        name: The file.
        text: Its content.

    Raises:
        UserError: A mapping has a key twice; the message has the key and the line.
    """
    found = repeated_key(text)
    if found is not None:
        key, line = found
        raise UserError(
            f"--{option} {name} has {key!r} twice in one mapping, again in line {line},"
            " and only the last one would be used: rename or remove one of them"
        )


def check_joint_network(args: argparse.Namespace) -> None:
    """Check that a transducer has a joint network; ESPnet has no default.

    Raises:
        UserError: It has none.
    """
    decoder = getattr(args, "decoder", None)  # a pre-training has none
    if decoder == "transducer" and args.joint_net_conf is None:
        raise UserError(
            "'decoder: transducer' needs a joint network: set 'joint_net_conf: "
            "{joint_space_size: 256}'"
        )


def check_init_param(args: argparse.Namespace) -> None:
    """Compare the encoder with the one whose parameters ``--init_param`` loads.

    Its input must have the same kind of normalisation.

    The options of that one are in ``config.yaml`` beside its checkpoint; without this
    file nothing is checked. A difference is only logged with ``--ignore_init_mismatch
    true``, or if the other model is a recogniser; its encoder may have another class,
    as ``cif_conformer`` can start from ESPnet's ``conformer``.

    Raises:
        UserError: An option differs from that of a ``model: pretrain``; the message
            names it.
    """
    import yaml

    parts = [text.split(":") for text in args.init_param or ()]
    loaded = {part[2] if len(part) > 2 else "" for part in parts}
    for text, (path, *keys) in zip(args.init_param or (), parts, strict=True):
        config = Path(path).with_name("config.yaml")
        checked: tuple[list[str], ...] = ([], ["encoder"] * 2, ["decoder"] * 2)
        if keys[:2] not in checked or not config.is_file():
            continue
        try:
            made = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{config}: cannot be read ({error})") from error
        if not isinstance(made, Mapping):
            continue
        if keys[:1] == ["decoder"]:
            if "model" not in made:  # of espnet_cif_hkd.cli.whisper_decoder
                _check_decoder(text, made, vars(args), config)
            continue
        pretrained = made.get("model") == "pretrain"
        if not pretrained and made.get("encoder") != args.encoder:
            continue
        for compare in _difference, _other_normalization:
            difference = compare(made, vars(args), config)
            if difference and (args.ignore_init_mismatch or not pretrained):
                logging.warning("--init_param %s: %s", text, difference)
            elif difference:
                raise UserError(
                    f"--init_param {text}: {difference}; give both models the same "
                    "option, or --ignore_init_mismatch true to load the parameters "
                    "that fit"
                )
        _warn_of_statistics(made, vars(args), config, loaded)


def _check_decoder(
    text: str, made: Mapping[str, Any], args: Mapping[str, Any], config: Path
) -> None:
    """Check the options of the decoder that a configuration names.

    Raises:
        UserError: An option differs.
    """
    conf = _complete("decoder", args)
    wanted = {"decoder": made.get("decoder")}
    wanted |= {
        f"decoder_conf.{name}": value
        for name, value in (made.get("decoder_conf") or {}).items()
    }
    found = {"decoder": args.get("decoder")}
    found |= {f"decoder_conf.{name}": value for name, value in conf.items()}
    for name, value in wanted.items():
        if found.get(name) != value and not args.get("ignore_init_mismatch"):
            raise UserError(
                f"--init_param {text}: {name} is {value!r} in {config} and "
                f"{found.get(name)!r} here; give both the same option"
            )


def _difference(
    made: Mapping[str, Any], args: Mapping[str, Any], config: Path
) -> str | None:
    """Describe the first option that differs; None if there is none."""
    for part in _PARTS:
        if made.get(part) != args.get(part):
            return (
                f"{part} is {made.get(part)!r} in {config} and {args.get(part)!r} here"
            )
        if not args.get(part):
            continue
        old, new = _complete(part, made), _complete(part, args)
        for name in sorted({*old, *new}):
            regularising = any(word in name for word in _REGULARISING)
            if not regularising and old.get(name) != new.get(name):
                return (
                    f"{part}_conf.{name} is {old.get(name)!r} in {config} and "
                    f"{new.get(name)!r} here"
                )
    return None


def _complete(part: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a part with their defaults, in comparable form."""
    from espnet2.tasks import asr
    from espnet2.utils.get_default_kwargs import get_default_kwargs
    from humanfriendly import parse_size

    choices = getattr(asr, f"{part}_choices")
    conf = dict(args.get(f"{part}_conf") or {})
    with contextlib.suppress(Exception):  # an unknown class: ESPnet reports it
        conf = {**get_default_kwargs(choices.get_class(args[part])), **conf}
    if isinstance(conf.get("fs"), str):
        conf["fs"] = parse_size(conf["fs"])
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in conf.items()
    }


def _other_normalization(
    made: Mapping[str, Any], args: Mapping[str, Any], config: Path
) -> str | None:
    """Describe another kind of normalisation; None if it is the same."""
    if made.get("normalize", args["normalize"]) == args["normalize"]:
        return None
    return (
        f"normalize is {made['normalize']!r} in {config} and {args['normalize']!r} "
        "here, so the encoder's input has another scale (--feats_normalize of asr.sh)"
    )


def _warn_of_statistics(
    made: Mapping[str, Any], args: Mapping[str, Any], config: Path, loaded: set[str]
) -> None:
    kinds = made.get("normalize"), args["normalize"]
    files = [
        (one.get("normalize_conf") or {}).get("stats_file") for one in (made, args)
    ]
    if kinds != ("global_mvn", "global_mvn") or files[0] == files[1]:
        return
    if loaded & {"", "normalize"}:
        return
    logging.warning(
        "the encoder was trained with the statistics of %s, here they are those of %s, "
        "so its input has another scale: also give --init_param "
        "FILE:normalize:normalize",
        *(files[0] or config, files[1]),
    )
