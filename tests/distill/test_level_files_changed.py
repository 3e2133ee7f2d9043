"""A checkpoint decodes, whatever has happened to the files of its levels."""

import copy

import pytest
import torch
from espnet_parts import HYBRID
from soft_levels import criteria, unit_file
from tiny_model import tiny_batch, tiny_model
from transducer_parts import tiny_transducer

from espnet_cif_hkd.distill import CheckContext, SoftLabelsCriterion
from espnet_cif_hkd.distill.level_sources import LevelSource
from espnet_cif_hkd.errors import UserError

PHONES = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
HOSTS = {
    "cif": tiny_model,
    "hybrid": lambda **conf: tiny_model(**HYBRID, **conf),
    "transducer": tiny_transducer,
}


@pytest.fixture
def level(tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("".join(f"{word} a b\n" for word in "ABCDEFGH"))
    return {
        "tap": "layer:1",
        "unit": "lexicon",
        "unit_token_list": unit_file(tmp_path, PHONES),
        "lexicon": str(lexicon),
        "unknown_words": "unk",
        "lm_type": "uniform",
        "top_k": 2,
        "map": "cif",
    }


def longer(tokens, lexicon):
    tokens.write_text("\n".join([*PHONES[:-1], "c", PHONES[-1]]))


def no_token_list(tokens, lexicon):
    tokens.write_text("<html>\n")


def new_phone(tokens, lexicon):
    lexicon.write_text("A a b c\n")


def no_lexicon(tokens, lexicon):
    lexicon.write_bytes(b"A a \xff\xfe b\n")


def removed(tokens, lexicon):
    tokens.unlink()


CHANGES = {
    longer: None,
    no_token_list: "unit_tokens.txt: not in ESPnet's order",
    new_phone: "lexicon.txt: c not in unit_token_list",
    no_lexicon: "lexicon.txt, line 1: not UTF-8",
    removed: "this file does not exist",
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_decoding_needs_no_file_and_a_training_names_it(tmp_path, level, change, host):
    conf = {"model_conf": criteria({"one": level})}
    batch = tiny_batch(2)
    trained = HOSTS[host](**conf)
    loss = trained.train()(**copy.deepcopy(batch))[0]
    state = trained.state_dict()
    change(tmp_path / "unit_tokens.txt", tmp_path / "lexicon.txt")
    model = HOSTS[host](seed=1, **conf)
    model.load_state_dict(state, strict=False)  # as ESPnet does to decode
    frames = [
        one.eval().encode(batch["speech"], batch["speech_lengths"])[0]
        for one in (trained, model)
    ]
    assert torch.equal(*frames)
    if CHANGES[change] is None:
        assert torch.isfinite(loss)
        return
    for refused in (
        lambda: model.train()(**batch),
        lambda: SoftLabelsCriterion.check_training({"levels": {"one": level}}, {}),
        lambda: SoftLabelsCriterion.check(
            {"levels": {"one": level}}, CheckContext("cif", trained.token_list, "char")
        ),
    ):
        with pytest.raises(UserError, match=rf"levels\.one.*{CHANGES[change]}"):
            refused()


def test_a_training_goes_on_only_with_the_same_shapes(tmp_path, level):
    """``strict``, as ESPnet's trainer loads: a head is not dropped in silence."""
    conf = {"model_conf": criteria({"one": level})}
    state = tiny_model(**conf).state_dict()
    longer(tmp_path / "unit_tokens.txt", None)
    for before, message in (
        (state, "size mismatch for criteria"),
        (tiny_model().state_dict(), "Missing key.*criteria"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            tiny_model(**conf).load_state_dict(before)
        assert "\n" not in str(caught.value)


def test_the_constructor_opens_no_lexicon(level, monkeypatch):
    def refuse(source):
        raise AssertionError("a unit was built")

    monkeypatch.setattr(LevelSource, "unit", property(refuse))
    model = tiny_model(model_conf=criteria({"one": level}))
    assert model.criteria["lm"].heads["one"].output.out_features == len(PHONES)
