"""Checks of criteria and teachers before a training."""

import argparse

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.recipe.context import Run


def check_criteria(
    run: Run, args: argparse.Namespace, token_list: list[str] | None
) -> None:
    """Let each configured criterion check its own options.

    Args:
        run: The run.
        args: Arguments of the training.
        token_list: Tokens of the recogniser; None before stage 5: then only options
            that do not depend on tokens are checked.

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
    context = CheckContext(
        model,
        token_list,
        run.options.token_type,
        run.options.asr_config,
        vars(args),
    )
    for item in items:
        with item.naming():
            remarks = item.cls.check(item.conf, context)
        for remark in remarks:
            log(f"preflight: {remark}")
