"""The registry of language models as teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_cif_hkd.teachers.lm.labels import LMTeacher
from espnet_cif_hkd.teachers.registry import TeacherChoices

# Register your own: ``lm_choices.classes["mine"] = Mine``.
lm_choices: TeacherChoices[LMTeacher] = TeacherChoices(
    {
        "espnet": "espnet_cif_hkd.teachers.lm.espnet:ESPnetLM",
        "hf_causal": "espnet_cif_hkd.teachers.lm.hf:CausalLM",
        "hf_characters": "espnet_cif_hkd.teachers.lm.hf_characters:CharacterLM",
        "hf_masked": "espnet_cif_hkd.teachers.lm.hf:MaskedLM",
        "uniform": "espnet_cif_hkd.teachers.lm.controls:UniformLM",
        "unigram": "espnet_cif_hkd.teachers.lm.controls:UnigramLM",
    },
    LMTeacher,  # type: ignore[type-abstract]
    "lm_type",
)


def build_lm_teacher(
    conf: Mapping[str, Any], token_list: Sequence[str], *, stored: bool = True
) -> LMTeacher:
    """Build the LM teacher of a mapping of options; opens nothing.

    Args:
        conf: Options of one unit. Other keys are ignored.

            - ``lm``: the LM: a folder of ESPnet's ``lm_train``; a folder, a hub name or
              ``pkg://DISTRIBUTION/FOLDER`` with a Hugging Face model; a file of counts
              for ``unigram``.
            - ``lm_type``: ``espnet`` (default), ``hf_causal``, ``hf_characters``,
              ``hf_masked``, ``uniform``, ``unigram``, or a registered name.
            - ``lm_revision``: commit or tag of a hub name.
            - ``lm_conf``: further options of the LM.
            - ``temperature``: divisor of the logits, default 3.
            - ``top_k``: number of labels of each unit, default 8.
            - ``label_store``: folder of stored labels.
        token_list: Tokens of the unit in ESPnet's order.
        stored: Whether to read ``label_store``, if it is set, instead of running the
            LM.

    Raises:
        UserError: An option is missing or wrong.
    """
    kind = lm_choices.get_class(str(conf.get("lm_type") or "espnet"))
    teacher = kind.from_conf(conf, token_list)
    if not (stored and conf.get("label_store")):
        return teacher
    from espnet_cif_hkd.teachers.lm.stored import StoredLM

    return StoredLM(str(conf["label_store"]), teacher)
