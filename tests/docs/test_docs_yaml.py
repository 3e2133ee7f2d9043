"""Training configurations in the pages have options that exist."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from espnet2.tasks import asr
from tiny_model import espnet_defaults

import espnet_cif_hkd
from espnet_cif_hkd.decoder.firing_options import build_firing
from espnet_cif_hkd.distill.choices import configured
from espnet_cif_hkd.distill.criterion import check_signature
from espnet_cif_hkd.distill.frame_options import check_choices, teacher_options
from espnet_cif_hkd.distill.options import AcousticOptions, LinguisticOptions

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("decoding", "pretraining", "streaming_encoder")),
    *(f"docs/{name}.md" for name in ("text_only", "transducer")),
]
EXAMPLES = [
    pytest.param(yaml.safe_load(block), id=f"{page}-{n}")
    for page in PAGES
    for n, block in enumerate(
        re.findall(
            r"^```yaml\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S
        )
    )
]
PARTS = ("frontend", "specaug", "normalize", "encoder", "decoder", "model")
# What a block is about that does not name it.
DEFAULTS = {"specaug": "specaug", "decoder": "cif", "model": "cif"}


def written(value):
    """The value without what a page leaves out by an ellipsis."""
    if not isinstance(value, dict):
        return value
    return {name: written(one) for name, one in value.items() if name != "…"}


def accept(cls, options):
    """Fail if the constructor of a class does not take the options."""
    taken = inspect.signature(cls).parameters
    assert set(options) <= set(taken), cls


@pytest.mark.parametrize("given", EXAMPLES)
def test_the_options_of_an_example_exist(given):
    espnet_cif_hkd.register()
    block = written(given)
    assert block and set(block) <= set(espnet_defaults())
    for part in PARTS:
        name = block.get(part, DEFAULTS.get(part))
        options = dict(block.get(f"{part}_conf") or {})
        if name is not None:
            cls = getattr(asr, f"{part}_choices").get_class(name)
            accept(cls, options)
            build_firing(8, options.get("predictor_conf"))
        else:
            assert not options, f"{part}_conf without {part}"


@pytest.mark.parametrize("given", EXAMPLES)
def test_the_criteria_of_an_example_exist(given):
    for item in configured(written(given).get("model_conf", {})):
        check_signature(item.cls, item.conf)
        if item.kind == "hkd":
            accept(AcousticOptions, item.conf.get("acoustic", {}))
            accept(LinguisticOptions, item.conf.get("linguistic", {}))
        if item.kind == "frames":
            values = {"tap": "hs_pad", "loss": "l1", "combine": "heads"}
            values |= {"match": "time"}
            check_choices(*(item.conf.get(name, values[name]) for name in values))
            if item.conf["teachers"]:
                teacher_options(item.conf["teachers"])


def test_every_page_has_an_example():
    assert {str(one.id).rpartition("-")[0] for one in EXAMPLES} == set(PAGES)
