"""Options that every criterion has: read, checked and kept out of its own."""

import pytest
import recorder
import torch
from tiny_bert import HIDDEN

from espnet_cif_hkd.distill import AbsDistillCriterion, DistillOutput, criterion_choices
from espnet_cif_hkd.distill.choices import configured
from espnet_cif_hkd.distill.schedule import CommonOptions
from espnet_cif_hkd.errors import UserError

assert recorder  # registers "mean_frame"


def single(**options):
    return {"criterion": "mean_frame", "criterion_conf": options}


def several(**options):
    return {"criteria": {"mine": {"type": "mean_frame", **options}}}


@pytest.mark.parametrize("form", [single, several])
def test_they_are_separated_from_the_options_of_the_class(form):
    (found,) = configured(form(layer=2, start=10, ramp=5, max_share=0.25))
    assert found.conf == {"layer": 2}
    assert found.common == CommonOptions(10, 5, 0.25)
    (found,) = configured(form(layer=2))
    assert found.common == CommonOptions(0, 0, None) and not found.common.is_scheduled


WRONG = {
    "start": [-1, 1.5, "1e3", True, None],
    "ramp": [-1, 2.0, False],
    "max_share": [0, -0.1, "0.1", True, float("inf"), float("nan")],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, all_ in WRONG.items() for value in all_]
)
def test_a_wrong_value_is_one_line_that_names_the_key(name, value):
    for form, key in ((single, "criterion_conf"), (several, "criteria.mine")):
        with pytest.raises(UserError) as error:
            configured(form(**{name: value}))
        assert str(error.value).startswith(f"{key}.{name} is {value!r}; it must be")
        assert "\n" not in str(error.value)


def test_the_factor_is_0_then_rises_then_stays():
    options = CommonOptions(start=3, ramp=4)
    found = [options.factor(n) for n in range(9)]
    assert found == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert [CommonOptions(start=2).factor(n) for n in range(4)] == [0, 0, 1, 1]
    assert [CommonOptions(ramp=2).factor(n) for n in range(4)] == [0, 0.5, 1, 1]
    assert CommonOptions().factor(0) == 1


@criterion_choices.register("own_start")
class OwnStart(AbsDistillCriterion):
    """A criterion of a user that has an option ``start`` already."""

    def __init__(self, student, start="left"):
        super().__init__()
        self.start = start

    def forward(self, taps):
        return DistillOutput({"loss": torch.zeros(())}, {"loss": 1.0})


def test_an_option_of_the_class_goes_before_the_common_one():
    (found,) = configured(
        {"criteria": {"x": {"type": "own_start", "start": "right", "ramp": 3}}}
    )
    assert found.conf == {"start": "right"} and found.common == CommonOptions(ramp=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize_teacher": 1}, "normalize_teacher is 1; it must be true or false"),
        ({"normalize_teacher": True}, "normalize_teacher needs teacher_store"),
    ],
)
def test_standardised_vectors_need_a_store(options, message):
    from hkd_batch import STUDENT

    from espnet_cif_hkd.distill import HKDCriterion

    with pytest.raises(UserError, match=f"criterion_conf.{message}"):
        HKDCriterion(STUDENT, "bert", HIDDEN, **options)
