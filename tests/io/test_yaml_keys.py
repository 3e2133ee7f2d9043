"""Keys that a YAML file has twice."""

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.yaml_keys import repeated_key
from espnet_cif_hkd.plugin.preflight import check_repeated_keys

TEACHERS = """\
model: pretrain
model_conf:
  criteria:
    frames:
      teachers:
        a: {teacher: x}
        b: {teacher: y}
        a: {teacher: z}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEACHERS, ("a", 8)),
        ("a: 1\nb: 2\na: 3\n", ("a", 3)),
        ("- {x: 1}\n- {y: 1, z: 2, y: 3}\n", ("y", 2)),
        ("a: {x: 1}\nb: {x: 2}\n", None),
        ("a: &base {x: 1}\nb: {<<: *base, y: 1}\nc: *base\n", None),
        ("? [1, 2]\n: x\n? [1, 2, 3]\n: y\n", None),
        ("1: a\n2: b\n1: c\n", ("1", 3)),
        ("a: [1,\n", None),
        ("", None),
    ],
)
def test_the_first_key_that_is_repeated(text, expected):
    assert repeated_key(text) == expected


def test_two_teachers_with_one_name():
    message = "conf/a.yaml has 'a' twice in one mapping, again in line 8, and only"
    with pytest.raises(UserError, match=message):
        check_repeated_keys("asr_config", "conf/a.yaml", TEACHERS)
