"""Recipes fill one store for each level, from Kaldi text files."""

import importlib
import re

import pytest
import torch
import yaml
from level_loops import features
from soft_levels import chars, criteria, spans_of, to_unit, write_ctm
from tiny_model import TOKENS, tiny_model

from espnet_cif_hkd.distill import SoftLabelsCriterion
from espnet_cif_hkd.distill.filling import fill_stores
from espnet_cif_hkd.distill.level_options import level_options
from espnet_cif_hkd.distill.level_sources import LevelSource
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.base import sequence_key
from espnet_cif_hkd.teachers.lm.registry import build_lm_teacher
from espnet_cif_hkd.teachers.store.reader import StoreReader

TEXTS = ["ABBA", "HEAD BAGGAGE", "", "ABBA"]


def config_of(folder):
    levels = {
        "low": chars(folder, map="ctc", label_store=str(folder / "chars")),
        "again": chars(folder, map="cif", label_store=str(folder / "chars")),
        "hard": chars(folder, soft=0, label_store=str(folder / "hard")),
        "output": {
            "tap": "logits",
            "interpolation": 0.3,
            "lm_type": "table",
            "label_store": str(folder / "tokens"),
        },
    }
    return {"model_conf": criteria(levels, token_type="char")}


def fill(place, config, **options):
    text = place / "text"
    text.write_text("".join(f"utt{n} {one}\n" for n, one in enumerate(TEXTS)))
    tokens = {"token_list": TOKENS, "token_type": "char"}
    fill_stores(config, "train.yaml", tokens, [text], device="cpu", **options)


def test_each_store_has_the_sequences_of_its_unit(tmp_path):
    """Each once; a level without soft labels has none. A second run adds nothing."""
    config = config_of(tmp_path)
    fill(tmp_path, config)
    ids = [[TOKENS.index("<space>" if c == " " else c) for c in t] for t in TEXTS]
    wanted = {
        "chars": [to_unit(ids[0]), to_unit(ids[1])],
        "tokens": [ids[0], ids[1]],
    }
    sizes = {}
    for name, sequences in wanted.items():
        conf = {"lm_type": "table", "top_k": 4}
        payload = build_lm_teacher(conf, TOKENS).payload
        if name == "tokens":
            payload = build_lm_teacher({"lm_type": "table"}, TOKENS).payload
        reader = StoreReader(tmp_path / name, payload)
        places = reader.find([sequence_key(one) for one in sequences])
        assert len(reader) == 2 and None not in places
        rows, _ = reader.read(places)
        assert rows == [len(one) for one in sequences]
        sizes[name] = [path.stat().st_mtime_ns for path in reader.paths]
    assert not (tmp_path / "hard").exists()
    fill(tmp_path, config)
    for name, times in sizes.items():
        paths = sorted((tmp_path / name).glob("shard-*"))
        assert [path.stat().st_mtime_ns for path in paths] == times
    options = dict(config["model_conf"]["criteria"]["lm"])
    options.pop("type")
    SoftLabelsCriterion.check_training(options, {"token_list": TOKENS})
    model = tiny_model(model_conf=config["model_conf"]).double()
    with pytest.raises(UserError, match=r"has no (targets|labels) for the sentence"):
        model(**{k: v for k, v in features().items() if k != "utt_id"})


def test_another_folder_fits_one_store_only(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(UserError, match="--store fits only one criterion with one sto"):
        fill(tmp_path, config, folder=str(tmp_path / "other"))


@pytest.mark.parametrize("unit", ["char", "aligned"])
def test_a_missing_store_names_a_command_that_fills_it(tmp_path, unit):
    """Also for units that are in no text."""
    ids = to_unit([3, 4])
    ctm = write_ctm(tmp_path / "units.ctm", {"utt0": (ids, spans_of(ids, 1.0))})
    way = {"map": "alignment", "alignment": ctm} if unit == "aligned" else {}
    store = str(tmp_path / "labels")
    conf = {"levels": {"one": chars(tmp_path, unit=unit, label_store=store, **way)}}
    with pytest.raises(UserError, match=r"there is no header\.json") as caught:
        SoftLabelsCriterion.check_training(conf, {"token_list": TOKENS})
    (command,) = re.findall(r"python3 -m (\S+)", str(caught.value))
    config, text, tokens = (tmp_path / name for name in ("asr.yaml", "text", "tokens"))
    config.write_text(yaml.safe_dump({"model_conf": criteria(**conf)}))
    text.write_text("utt0 AB\n")
    tokens.write_text("\n".join(TOKENS) + "\n")
    importlib.import_module(command).main(
        [
            *("--asr_config", str(config), "--text", str(text), "--device", "cpu"),
            *("--token_list", str(tokens), "--token_type", "char"),
        ]
    )
    SoftLabelsCriterion.check_training(conf, {"token_list": TOKENS})
    (level,) = level_options(conf["levels"])
    found = LevelSource(level, TOKENS).teacher().targets([ids], torch.device("cpu"))
    assert found.sizes == [2]
