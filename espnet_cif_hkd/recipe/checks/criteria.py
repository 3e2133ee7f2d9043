"""Checks of criteria, teachers and the frontend of a teacher before a training."""

import argparse

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log


def check_frontend(args: argparse.Namespace) -> None:
    """Check the options, the model and the store of ``frontend: speech_teacher``.

    Args:
        args: Arguments of the training.

    Raises:
        UserError: An option, the model or the store is wrong, or an option changes the
            samples, whose features are read from a store.
    """
    if args.frontend != "speech_teacher":
        return
    from espnet_cif_hkd.distill.frame_options import changes_of_audio
    from espnet_cif_hkd.encoder.speech_teacher import SpeechTeacherFrontend

    conf = args.frontend_conf or {}
    try:
        frontend = SpeechTeacherFrontend(**conf)
    except TypeError as error:
        raise UserError(
            f"frontend_conf: {error}; docs/configuration.md lists the options of "
            "frontend: speech_teacher"
        ) from error
    if conf.get("teacher_store"):
        used = changes_of_audio(vars(args))
        if used:
            raise UserError(
                f"{used[0]} changes the samples in training, but frontend_conf reads "
                f"features from teacher_store {conf['teacher_store']}: remove one of "
                "the two"
            )
    frontend.check()


def check_criteria(
    args: argparse.Namespace,
    token_list: list[str] | None,
    token_type: str,
    source: str,
) -> None:
    """Let each configured criterion check its own options.

    Args:
        args: Arguments of the training.
        token_list: Tokens of the recogniser; None before stage 5: then only options
            that do not depend on tokens are checked.
        token_type: Token type of the recogniser.
        source: The configuration file, for messages.

    Raises:
        UserError: An option of a criterion, or its teacher, is wrong.
    """
    model_conf = args.model_conf or {}
    if not (model_conf.get("criterion") or model_conf.get("criteria")):
        return
    from espnet_cif_hkd.distill.choices import configured
    from espnet_cif_hkd.distill.criterion import CheckContext

    items = configured(model_conf)
    model = str(args.model or "espnet")
    if items and model == "espnet":
        raise UserError(
            f"'model: espnet' cannot have a {items[0].label}: set 'model: hybrid', or "
            "'model: cif' with 'decoder: cif'"
        )
    context = CheckContext(model, token_list, token_type, source, vars(args))
    for item in items:
        with item.naming():
            remarks = item.cls.check(item.conf, context)
        for remark in remarks:
            log(f"preflight: {remark}")
