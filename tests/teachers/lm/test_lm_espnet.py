"""The files of ESPnet's language models: what is read, and what is refused."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_lm import TOKENS, build_tiny_lm, configuration, encode

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

CPU = torch.device("cpu")
AVERAGE, BEST = "valid.loss.ave.pth", "valid.loss.best.pth"
ITEMS = [encode("abc"), encode("ba")]


@pytest.fixture
def folder(tmp_path):
    return Path(build_tiny_lm(tmp_path / "lm"))


def teacher(name, tokens=TOKENS, **options):
    return build_lm_teacher({"lm": str(name), **options}, tokens)


def shares(name):
    return teacher(name).targets(ITEMS, CPU).tensors["probabilities"]


def test_the_average_or_else_the_best_or_a_named_file_is_read(folder):
    first = shares(folder)
    (folder / AVERAGE).rename(folder / "3epoch.pth")
    (folder / BEST).symlink_to("3epoch.pth")
    assert torch.equal(shares(folder), first)
    assert torch.equal(shares(folder / "3epoch.pth"), first)
    build_tiny_lm(folder, seed=1)
    assert not torch.equal(shares(folder), first)  # the average comes first
    assert torch.equal(shares(folder / BEST), first)


def test_the_fingerprint_is_that_of_the_weights_and_the_model(folder, tmp_path):
    first = teacher(folder).fingerprint()
    folder.rename(tmp_path / "moved")
    assert teacher(folder).fingerprint() is None
    moved = tmp_path / "moved"
    assert teacher(moved).fingerprint() == first
    config = yaml.safe_load((moved / "config.yaml").read_text())
    (moved / "config.yaml").write_text(yaml.safe_dump({**config, "max_epoch": 3}))
    assert teacher(moved).fingerprint() == first
    config["lm_conf"]["head"] = 1
    (moved / "config.yaml").write_text(yaml.safe_dump(config))
    assert teacher(moved).fingerprint() != first
    build_tiny_lm(moved, seed=1)
    assert teacher(moved).fingerprint() not in (None, first)


CHANGED = [
    ([*TOKENS[:3], "z", *TOKENS[4:]], r"token 4 is 'b' in the LM and 'z' in the unit"),
    (TOKENS[:5], r"\(11 tokens\) .* \(5 tokens\): token 6 is 'd' .* nothing in the"),
    ([*TOKENS, "more"], r"token 12 is nothing in the LM and 'more' in the unit"),
]


@pytest.mark.parametrize(("tokens", "match"), CHANGED)
def test_another_token_list_is_refused_with_the_first_difference(folder, tokens, match):
    for act in ("check", "open"):
        with pytest.raises(UserError, match=match) as error:
            getattr(teacher(folder, tokens), act)()
        assert "\n" not in str(error.value)


def cut(folder):
    data = (folder / AVERAGE).read_bytes()
    (folder / AVERAGE).write_bytes(data[: len(data) // 2])


def write(**changes):
    def act(folder):
        text = yaml.safe_dump({**configuration(), **changes})
        (folder / "config.yaml").write_text(text)

    return act


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: (f / AVERAGE).unlink(), f"holds neither {AVERAGE} nor {BEST}"),
        (lambda f: (f / "config.yaml").unlink(), "config.yaml: cannot be read"),
        (lambda f: (f / "config.yaml").write_text("a: [b"), "cannot be read"),
        (lambda f: (f / "config.yaml").write_text("- a"), "describes the model None"),
        (cut, f"{AVERAGE}: the file is cut off"),
        (write(lm="transformer_opt"), "model 'transformer_opt', not .* hf_causal"),
        (write(lm="conformer"), "model 'conformer', not one of ESPnet's own"),
        (write(model="lm_multitask"), "train the LM with model: lm"),
        (write(token_list=None), r"its token list \(0 tokens\) is not that"),
    ],
)
def test_bad_files_are_refused_in_one_line(folder, damage, match):
    damage(folder)
    with pytest.raises(UserError, match=match) as error:
        teacher(folder).check()
    assert "\n" not in str(error.value)


def test_weights_of_another_model_are_refused(folder):
    write(lm="seq_rnn", lm_conf={"unit": 8})(folder)
    with pytest.raises(UserError, match=r"cannot be loaded with the config.yaml"):
        teacher(folder).open()


def test_weights_are_never_unpickled(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"lm": Evil()}, folder / AVERAGE)
    with pytest.raises(UserError, match="cannot be loaded"):
        teacher(folder).open()
    assert not (tmp_path / "ran").exists()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="set lm to the folder of a finished lm_train"):
        teacher(tmp_path / "none").check()
