"""Look at a configuration's teacher before hours are spent on a training."""

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_cif_hkd.distill.hkd import HKDCriterion
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.check import TeacherReport, check_text_teacher

__all__ = ["TeacherReport", "check_teacher"]


def check_teacher(
    criterion_conf: Mapping[str, Any],
    token_list: Sequence[str] | None,
    token_type: str | None = None,
) -> TeacherReport | None:
    """Check the options of HKD and its teacher, see :func:`check_text_teacher`.

    Returns:
        None when both weights are 0, so that no teacher is needed.

    Raises:
        UserError: says what is wrong and how to correct it.
    """
    conf = dict(criterion_conf)
    try:
        criterion = HKDCriterion(token_list or [], 1, 1, **conf)
    except TypeError as e:
        raise UserError(f"criterion_conf: {e}; correct the name of the option") from e
    if not list(criterion.parameters()):
        return None
    return check_text_teacher(conf, token_list, token_type)
