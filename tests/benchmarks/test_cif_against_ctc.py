"""benchmarks/cif_against_ctc.py: its tables by hand, and a tiny model end to end."""

import sys

import cif_against_ctc
import numpy as np
import pytest
import soundfile
import torch
import yaml
from cif_against_ctc import Analysis, Utterance
from tiny_model import TOKENS, tiny_batch, tiny_config, tiny_model

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.losses.ctc_guide import ctc_spikes
from espnet_cif_hkd.search.greedy import greedy_search
from espnet_cif_hkd.search.nar import one_pass_search

NAMES = ["<blank>", "<unk>", "<space>", "A", "B", "C", "<sos/eos>"]


def ids(text):
    return [NAMES.index("<space>" if c == " " else c) for c in text]


def to_text(tokens):
    return "".join(" " if token == "<space>" else token for token in tokens)


def utterance(reference, fired, ctc, cif, true):
    found = {"CTC": ids(ctc), "CIF": ids(cif), "CIF, true length": ids(true)}
    return Utterance(ids(reference), fired, found)


def cells(text):
    return [
        [c.strip() for c in line.strip("|").split("|")] for line in text.split("\n")
    ]


@pytest.fixture
def analysis():
    spoken = [
        utterance("AB CA", 6, "AB CA", "AB BA", "AB CA"),  # one substitution
        utterance("AAAAA", 4, "AAAA", "AAA", "AAAAA"),  # two deletions
        utterance("B", 9, "BB", "BBBB", "B"),  # three insertions
    ]
    return Analysis(spoken, NAMES, to_text)


def test_rates_by_hand(analysis):
    head, _, ctc, cif, true = cells(analysis.rates())
    assert (
        head[0] == "way" and [ctc[0], cif[0], true[0]] == list(cif_against_ctc.WAYS)[:3]
    )
    # 11 characters, 10 without spaces, 4 words; CTC: one deletion, one insertion.
    assert ctc[1:] == ["18.2", "20", "50", "18.2", "0", "9.1", "9.1", "18.2"]
    # Length error: |6 - 6| + |4 - 6| + |9 - 2| of 14.
    assert cif[1:] == ["54.5", "60", "75", "54.5", "9.1", "18.2", "27.3", "64.3"]
    assert true[1:] == ["0"] * 8


def test_differences_by_hand(analysis):
    head, _, *rows = cells(analysis.differences())
    assert head[:3] == ["way", "of", "minus CTC, points"] and len(rows) == 6
    # Characters of CTC: 2 of 11 wrong; of CIF: 6. Words: 2 and 3 of 4.
    cif = {row[1]: row for row in rows if row[0] == "CIF"}
    assert cif["CER"][2] == "+36.4" and cif["CER"][6] == "+200.0"
    assert cif["WER"][2] == "+25.0" and cif["WER"][4] == cif["WER"][5] == "–"
    assert cif["WER"][-1] == "no difference shown"  # the last word decides


def test_several_models_are_as_many_rows():
    right = utterance("AB", 3, "AB", "AB", "AB")
    wrong = utterance("AB", 3, "A", "BB", "AB")
    two = Analysis([right, wrong, wrong, wrong], NAMES, to_text, n_models=2)
    assert two.n_each == 2
    assert two.errors(two.tokens["CTC"]).tolist() == [[0, 1], [1, 1]]
    assert cells(two.rates())[2][4] == "37.5"
    cif = cells(two.differences())[2]
    assert cif[2] == "0.0" and cif[5] == "[0.0, 0.0]"


def test_drift_by_hand(monkeypatch):
    """Alpha that is 1 at CTC's spikes has none."""
    model, batch = tiny_model().eval(), tiny_batch(1)
    with torch.no_grad():
        hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    reference = batch["text"][0].tolist()
    length = torch.tensor([len(reference)])
    logp = model.ctc.log_softmax(hs_pad)
    spikes = ctc_spikes(logp, hlens, torch.tensor([reference]), length, model.blank_id)
    n_frames = int(hlens)
    assert int(spikes.max()) < n_frames - 1 and int(spikes.min()) >= 0
    alpha = torch.full((1, n_frames), 1e-9)
    alpha[0, spikes[0]] = 1.0
    alpha[0, -1] = 1.0  # <eos>
    monkeypatch.setattr(model.decoder.predictor, "forward", lambda *_: alpha)
    found = cif_against_ctc.drift(model, hs_pad, hlens, reference)
    assert found == pytest.approx([0.0] * len(reference), abs=1e-6)
    # Nothing at the first spike, and two tokens at the end: all others are one late.
    late = alpha.clone()
    late[0, spikes[0, 0]], late[0, -1] = 1e-9, 2.0
    monkeypatch.setattr(model.decoder.predictor, "forward", lambda *_: late)
    moved = cif_against_ctc.drift(model, hs_pad, hlens, reference)
    expected = [-0.5] + [-1.0] * (len(reference) - 1)
    assert moved == pytest.approx(expected, abs=1e-6)
    one = Utterance(reference, 3, dict.fromkeys(cif_against_ctc.WAYS, reference))
    one.drift = [0.1, -0.7, 1.4, 2.2]
    (row,) = cells(Analysis([one], TOKENS, to_text).drifts())[2:]
    assert row == ["4", "1.1", "75", "50", "25"]


def test_positions_by_hand():
    one = utterance("ABCABCABCA", 11, "BBCABCABCA", "ABCABCABCB", "ABCABCABCA")
    rows = cells(Analysis([one, one], NAMES, to_text).positions())[2:]
    assert [row[0] for row in rows][:2] == ["0-10%", "10-20%"] and len(rows) == 10
    assert [row[1] for row in rows] == ["100"] + ["0"] * 9
    assert [row[2] for row in rows] == ["0"] * 9 + ["100"]
    assert [row[3] for row in rows] == ["0"] * 10


def test_length_errors_by_hand(analysis):
    head, _, *rows = cells(analysis.lengths())
    assert head[:2] == ["fired − tokens", "utterances"]
    assert rows == [
        ["-2", "1", "20", "40", "0"],
        ["0", "1", "0", "20", "0"],
        ["+3 and more", "1", "100", "300", "0"],
    ]


def test_each_way_decodes_as_the_model_does():
    model, batch = tiny_model().eval(), tiny_batch(1)
    reference = batch["text"][0].tolist()
    found = cif_against_ctc.recognise(
        model, batch["speech"], batch["speech_lengths"], reference
    )
    with torch.no_grad():
        hs_pad, hlens = model.encode(batch["speech"], batch["speech_lengths"])
    assert found.fired == int(model.decoder.fire(hs_pad, hlens).lengths)
    (free,) = greedy_search(model.decoder, hs_pad, hlens)
    assert found.found["CIF"] == free.yseq[1:-1].tolist()
    n_true = len(found.found["CIF, true length"])
    # <eos> is possible one token before the last, and certain after it.
    assert n_true in range(len(reference) - 1, len(reference) + 2)
    assert found.fired - 1 != n_true, "the true length has no effect in this test"
    path = model.ctc.argmax(hs_pad)[0].tolist()
    before = [0, *path[:-1]]
    assert found.found["CTC"] == [b for a, b in zip(before, path) if b not in (0, a)]


def test_a_one_pass_decoder_is_a_fifth_way():
    """Its tokens are those of the search of ``--one_pass``."""
    model, batch = (
        tiny_model(model_conf={"nar_conf": {"num_blocks": 1}}).eval(),
        tiny_batch(1),
    )
    speech, lengths = batch["speech"], batch["speech_lengths"]
    reference = batch["text"][0].tolist()
    found = cif_against_ctc.recognise(model, speech, lengths, reference)
    with torch.no_grad():
        frames = model.encode(speech, lengths)
        (one,) = one_pass_search(model.nar, *frames, firing=model.decoder)
    assert found.found["one pass"] == one.yseq[1:-1].tolist()
    table = cells(Analysis([found], TOKENS, to_text).rates())
    assert [row[0] for row in table[2:]] == [*cif_against_ctc.WAYS, "one pass"]


def test_both_ways_to_fire_whatever_the_model_does():
    batch = tiny_batch(1)
    speech, lengths = batch["speech"], batch["speech_lengths"]
    reference = batch["text"][0].tolist()
    found = []
    for firing in ("alpha", "spikes"):
        model = tiny_model(model_conf={"ctc_guide_firing": firing}).eval()
        model.ctc.ctc_lo.bias.data[model.blank_id] = 99.0  # no spikes
        with torch.no_grad():
            (one,) = greedy_search(
                model.decoder, *model.encode(speech, lengths), maxlenratio=-99
            )
        one = one.yseq[1:-1].tolist()
        ways = cif_against_ctc.recognise(model, speech, lengths, reference).found
        assert ways["CIF" if firing == "alpha" else "CIF at CTC's spikes"] == one
        found.append(ways)
    assert found[0] == found[1]
    assert found[0]["CIF"] != found[0]["CIF at CTC's spikes"]


@pytest.fixture
def trained(tmp_path):
    """An experiment and a data folder with recordings."""
    exp, data = tmp_path / "exp", tmp_path / "data"
    exp.mkdir(), data.mkdir()
    frontend = {"fs": 8000, "n_fft": 256, "hop_length": 80, "n_mels": 8}
    changes = {"frontend": "default", "frontend_conf": frontend, "input_size": None}
    model = tiny_model(**changes)
    torch.save(model.state_dict(), exp / "valid.acc.ave.pth")
    config = {**tiny_config(**changes), "token_type": "char"}
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    generator = np.random.default_rng(0)
    with open(data / "wav.scp", "w") as scp, open(data / "text", "w") as text:
        for n, words in enumerate(["AB CA", "B", "HEAD AB"]):
            path = data / f"{n}.wav"
            soundfile.write(path, generator.normal(size=4000 + 800 * n) * 0.1, 8000)
            scp.write(f"u{n} {path}\n")
            text.write(f"u{n} {words}\n")
    return exp, data


@pytest.mark.slow
def test_the_command_prints_five_tables(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cif_against_ctc.py", *map(str, trained)])
    cif_against_ctc.main()
    printed = capsys.readouterr().out
    assert "3 utterances" in printed and printed.count("|---|") >= 5
    exp, data = trained
    found = cif_against_ctc.analyse([exp], data)
    assert [one.reference for one in found.utterances] == [
        [TOKENS.index("<space>" if c == " " else c) for c in words]
        for words in ("AB CA", "B", "HEAD AB")
    ]
    twice = cif_against_ctc.analyse([exp, exp], data, limit=2)
    assert (len(twice.utterances), twice.n_each) == (4, 2)
    # The same model twice: between models there is no difference.
    assert twice.errors(twice.tokens["CIF"]).std(axis=0).tolist() == [0, 0]


def test_what_is_missing_is_one_line(trained, tmp_path):
    exp, data = trained
    with pytest.raises(UserError, match=r"gone\.pth: this file does not exist"):
        cif_against_ctc.analyse([exp], data, "gone.pth")
    with pytest.raises(UserError, match=r"name a data folder with wav\.scp"):
        cif_against_ctc.analyse([exp], tmp_path)
    (data / "segments").write_text("")
    with pytest.raises(UserError, match="recordings in segments are not read"):
        cif_against_ctc.analyse([exp], data)
