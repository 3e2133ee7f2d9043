"""Hugging Face's causal and masked language models against naive loops."""

import copy
import shutil

import pytest
import torch
from tiny_bert import CHINESE, build_tiny_bert
from tiny_hf_lm import build_causal, build_masked
from tiny_teachers import fast_tokenizer

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher

CPU = torch.device("cpu")
CHARS = ["<blank>", "<unk>", *CHINESE, "<sos/eos>"]
WORDS = ["<blank>", "<unk>", "▁the", "the", "th", *"cas", "<sos/eos>"]
LONG = [2 + n * 3 % 7 for n in range(30)]
ITEMS = [[2, 3, 4], [], [5], [2, 1, 6, 7, 2, 3]]
KINDS = {
    "masked": ("hf_masked", CHARS),
    "distilled": ("hf_masked", CHARS),
    "causal": ("hf_causal", WORDS),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    return {
        "masked": build_masked(folder / "masked"),
        "distilled": build_masked(folder / "distilled", "DistilBert"),
        "causal": build_causal(folder / "causal"),
        "short masked": build_masked(folder / "short_masked", positions=10),
        "short causal": build_causal(folder / "short_causal", positions=8),
    }


def teacher(models, name, **options):
    kind, tokens = KINDS[name.split()[-1]]
    conf = {"lm": models[name], "lm_type": kind, "top_k": 4, **options}
    return build_lm_teacher(conf, tokens)


def rows_of(targets):
    ids, shares = targets.tensors["ids"], targets.tensors["probabilities"]
    return [dict(zip(i.tolist(), p.tolist())) for i, p in zip(ids, shares)]


def naive(made, items, first_of=lambda length, n: 0, limit=1000):
    """One float64 run without padding for each unit, of the window that it is in."""
    model, (tokenizer, tokens) = copy.deepcopy(made.open()).double(), made.tokens()
    masked = made.kind == "hf_masked"
    rows = []
    for ids in items:
        own = tokens.ids[ids].tolist() if len(ids) else []
        for n in range(len(ids)):
            first = first_of(len(ids), n)
            window = own[first : first + limit]
            if masked:
                window[n - first] = tokenizer.mask_token_id
                read = [tokenizer.cls_token_id, *window, tokenizer.sep_token_id]
                place = n - first + 1
            else:
                read = [tokenizer.bos_token_id, *window[: n - first]]
                place = -1
            with torch.no_grad():
                output = model(input_ids=torch.tensor([read])).logits[0, place]
            logits = output[torch.from_numpy(tokens.ids[made.labels])]
            best, found = (logits / made.temperature).softmax(0).topk(4)
            labels = made.labels[found.numpy()].tolist()
            rows.append(dict(zip(labels, (best / best.sum()).tolist())))
    return rows


@pytest.mark.parametrize("name", KINDS)
def test_labels_equal_a_naive_loop(models, name):
    made = teacher(models, name, temperature=2.0)
    targets = made.targets(ITEMS, CPU)
    assert targets.sizes == [3, 0, 1, 6]
    found = rows_of(targets)
    for row, wanted in zip(found, naive(made, ITEMS), strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)
        assert not row.keys() & {0, 1, len(made.token_list) - 1}


@pytest.mark.parametrize("name", KINDS)
def test_companions_have_no_influence(models, name):
    made = teacher(models, name)
    together = iter(rows_of(made.targets([*ITEMS, LONG], CPU)))
    for ids in [*ITEMS, LONG]:
        for row in rows_of(made.targets([ids], CPU)):
            assert next(together) == pytest.approx(row, abs=1e-5)
    assert made.targets([], CPU).tensors["ids"].shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "lead", "first_of"),
    [
        # Windows of 8 begin at every fourth unit; a unit has at least 4 before it.
        ("short causal", 4, lambda n: n // 4 * 4 - 4 if n > 7 else 0),
        # At least 2 before it, and 2 after it.
        ("short masked", 2, lambda n: (n - 2) // 4 * 4 if n > 5 else 0),
    ],
)
def test_a_long_sentence_is_read_in_windows(models, name, lead, first_of):
    made = teacher(models, name)

    def window(length, n):
        # The last window ends with the sentence, so it may begin earlier.
        last = length - 8
        return last if n >= last + lead else min(first_of(n), last)

    expected = naive(made, [LONG], window, 8)
    for row, wanted in zip(rows_of(made.targets([LONG], CPU)), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)


def test_a_masked_lm_does_not_read_the_masked_unit(models):
    made = teacher(models, "masked")
    first = rows_of(made.targets([[2, 3, 4]], CPU))
    second = rows_of(made.targets([[2, 5, 4]], CPU))
    assert first[1] == pytest.approx(second[1])
    assert first[0] != pytest.approx(second[0])


def test_a_causal_lm_that_reads_ahead_is_refused(models):
    made = build_lm_teacher({"lm": models["masked"], "lm_type": "hf_causal"}, CHARS)
    with pytest.raises(UserError, match=r"is no causal LM; set lm_type: hf_masked"):
        made.open()


def test_an_encoder_without_output_layer_is_refused(tmp_path):
    folder = build_tiny_bert(tmp_path)
    made = build_lm_teacher({"lm": folder, "lm_type": "hf_masked"}, CHARS)
    with pytest.raises(UserError, match=r"lm .*lacks \d+ of them, e.g. cls"):
        made.open()


def test_a_masked_lm_without_mask_token_is_refused(models):
    made = build_lm_teacher({"lm": models["causal"], "lm_type": "hf_masked"}, WORDS)
    with pytest.raises(UserError) as error:
        made.targets([[2]], CPU)
    assert str(error.value).startswith("lm ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lm": "some/name"}, "set lm_revision to a commit of it, or lm to a folder"),
        ({"lm": "./no/where"}, "lm ./no/where: this folder does not exist; correct lm"),
        ({"lm": "pkg://no-such/f"}, "lm pkg://no-such/f: the package 'no-such' is not"),
        ({"lm": None}, "lm is not set; name a folder, a hub name"),
        ({"lm_conf": {"layer": 1}}, "lm_type hf_causal has no option 'layer'; it has"),
        ({"lm_conf": {"case": "up"}}, "case: 'up' is unknown"),
    ],
)
def test_bad_options_are_refused_in_one_line(models, options, match):
    conf = {"lm": models["causal"], "lm_type": "hf_causal", **options}
    with pytest.raises(UserError, match=match) as error:
        build_lm_teacher(conf, WORDS).check()
    assert "\n" not in str(error.value)


def test_the_fingerprint_does_not_depend_on_the_folder(models, tmp_path):
    first = teacher(models, "causal")
    shutil.copytree(models["causal"], tmp_path / "copy")
    conf = {"lm": str(tmp_path / "copy"), "lm_type": "hf_causal"}
    copied = build_lm_teacher(conf, WORDS)
    assert first.fingerprint() == copied.fingerprint() is not None
    fast_tokenizer("bytes", limit=7).save_pretrained(tmp_path / "copy")
    assert copied.fingerprint() != first.fingerprint()
