"""The language model of a level is measured on each text of a recipe."""

from soft_levels import chars, criteria, spans_of, to_unit, write_ctm
from tiny_model import TOKENS

from espnet_cif_hkd.distill.filling import fill_stores
from espnet_cif_hkd.teachers.lm.dump import read_quality

TRAIN = {"t1": "ABBA", "t2": "HEAD BAGGAGE", "t3": ""}
DEV = {"d1": "BAG", "d2": "CAB"}


def test_units_of_texts_and_of_alignments(tmp_path):
    """An alignment has the utterances of both texts, and may have others."""
    folders = [tmp_path / "train", tmp_path / "dev"]
    aligned = {}
    for folder, text in zip(folders, (TRAIN, DEV), strict=True):
        folder.mkdir()
        rows = "".join(f"{name} {words}\n" for name, words in text.items())
        (folder / "text").write_text(rows)
        for name, words in text.items():
            ids = [TOKENS.index({" ": "<space>"}.get(c, c)) for c in words[:3]]
            aligned[name] = to_unit(ids), spans_of(ids, 1.0)
    del aligned["d2"]
    aligned["other"] = to_unit([3, 4, 5, 6]), spans_of([3, 4, 5, 6], 1.0)
    ctm = write_ctm(tmp_path / "units.ctm", aligned)
    stores = {name: tmp_path / f"{name}_store" for name in ("spelt", "aligned", "both")}
    levels = {
        "spelt": chars(tmp_path, map="ctc", label_store=str(stores["spelt"])),
        "aligned": chars(
            tmp_path,
            unit="aligned",
            map="alignment",
            alignment=ctm,
            label_store=str(stores["aligned"]),
        ),
        "one": chars(tmp_path, map="ctc", label_store=str(stores["both"])),
        "two": chars(
            tmp_path, map="alignment", alignment=ctm, label_store=str(stores["both"])
        ),
    }
    texts = [folder / "text" for folder in folders]
    config = {"model_conf": criteria(levels, token_type="char")}
    tokens = {"token_list": TOKENS, "token_type": "char"}
    fill_stores(config, "train.yaml", tokens, texts, device="cpu")
    found = {
        name: [(text, one.n_units) for text, one in read_quality(store).items()]
        for name, store in stores.items()
    }
    train, dev = map(str, texts)
    assert found == {
        "spelt": [(train, 16), (dev, 6)],
        "aligned": [(train, 6), (dev, 3)],
        # Equal sequences are counted once: "BAG" is spelt and aligned.
        "both": [(train, 22), (dev, 6)],
    }
