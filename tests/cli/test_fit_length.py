"""espnet-cif fit-length: what it fits, writes and refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from error_line import error_line
from tiny_model import TOKENS
from tiny_speech import CHANGES, RATE, model_files, noise

from espnet_cif_hkd import Speech2Text
from espnet_cif_hkd.cli.fit_length import main
from espnet_cif_hkd.inference.length_fitting import (
    BONUSES,
    CandidateLists,
    Sentence,
    fit_bonus,
)
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.recipe.stages.sclite import align
from espnet_cif_hkd.search.lengths import LengthSearch

SLACK = 2
UNIT = ["--unit", "char"]
NAR = {"model_conf": {"nar_conf": {"attention_heads": 2, "num_blocks": 1}}}


def text_of(one):
    return one.text if hasattr(one, "text") else one[0][0]


def chosen_texts(model, search, folder, **options):
    """Oracle: decode the recordings with one bonus, by the search itself."""
    recogniser = Speech2Text(*model, greedy=True, **options)
    recogniser.asr_model.decoder.length_search = search
    waves = {
        path.stem: soundfile.read(path, dtype="float32")[0]
        for path in sorted(folder.glob("*.wav"))
    }
    return {key: text_of(recogniser(wave)) for key, wave in waves.items()}


def write_data(folder, texts):
    folder.mkdir(exist_ok=True)
    keys = sorted(texts)
    (folder / "wav.scp").write_text("".join(f"{key} {key}.wav\n" for key in keys))
    (folder / "text").write_text("".join(f"{key} {texts[key]}\n" for key in keys))


def errors(texts, others):
    """Wrong characters, counted as by stage 13."""
    return sum(align([*texts[key]], [*others[key]]).errors for key in texts)


def references(texts):
    """What readers of transcripts leave of texts: no spaces at the ends."""
    return {key: text.strip() for key, text in texts.items()}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A model, recordings, and transcripts that a bonus of 1 would write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    for n in range(7):
        soundfile.write(f"u{n}.wav", noise(0.4 + 0.15 * n, seed=n), RATE)
    return tmp_path


@pytest.mark.parametrize("one_pass", [False, True], ids=["token by token", "one pass"])
def test_the_bonus_with_the_fewest_errors_is_written(recipe, capfd, one_pass):
    conf = {**CHANGES, **(NAR if one_pass else {})}
    model = model_files(recipe / "exp", **conf)
    options = {"one_pass": True} if one_pass else {}
    texts = references(chosen_texts(model, LengthSearch(SLACK, 1.0), recipe, **options))
    write_data(recipe / "dev", texts)
    expected = {}
    for bonus in BONUSES:
        search = LengthSearch(SLACK, bonus)
        found = chosen_texts(model, search, recipe, **options)
        expected[bonus] = errors(texts, found)
    plain = errors(texts, chosen_texts(model, None, recipe, **options))
    least = min(expected.values())
    assert expected[1.0] == least < plain
    words = ["--model", "exp", "--data", "dev", "--slack", str(SLACK)]
    main([*words, *UNIT, *(["--one_pass"] if one_pass else [])])
    before = yaml.safe_load(Path(model[0]).read_text())
    after = yaml.safe_load((recipe / "exp/config_length.yaml").read_text())
    found = after["model_conf"].pop("length_conf")
    assert after == before
    assert found["slack"] == SLACK
    near = [bonus for bonus in BONUSES if expected[bonus] == least]
    assert None not in near
    assert found["bonus"] == min(near, key=abs)
    length = sum(map(len, texts.values()))
    [line] = [one for one in capfd.readouterr().out.splitlines() if " -> " in one]
    rates = f"{100 * plain / length:.2f} -> {100 * least / length:.2f} %"
    assert f"7 utterances: char errors {rates}" in line


def test_the_written_configuration_decides_the_search(recipe, capfd):
    model = model_files(recipe / "exp", **CHANGES)
    main(["--model", "exp/1epoch.pth", "--bonus", "1.0", "-o", "other.yaml"])
    assert "wrote other.yaml" in capfd.readouterr().out
    recogniser = Speech2Text("other.yaml", model[1], greedy=True)
    assert recogniser.asr_model.decoder.length_search == LengthSearch(3, 1.0)
    # The file can replace the model's own.
    main(["--model", "exp", "--bonus", "mean", "-o", "exp/config.yaml"])
    again = Speech2Text(*model, greedy=True)
    assert again.asr_model.decoder.length_search == LengthSearch(3, None)
    main(["--model", "exp", "--bonus", "-1", "--slack", "1", "-o", "exp/config.yaml"])
    again = Speech2Text(*model, greedy=True)
    assert again.asr_model.decoder.length_search == LengthSearch(1, -1.0)


def test_an_utterance_that_is_too_short_counts_as_deleted(recipe):
    model_files(recipe / "exp", **CHANGES)
    lists = CandidateLists(Recognizer("exp"), SLACK)
    assert [one.text for one in lists(np.zeros(20, np.float32))] == [""]


def some_lists(n):
    """Of two sentences the longer one is right, if its score is 0.5 less at most."""
    random = np.random.default_rng(0)
    lists, right = {}, {}
    for k in range(n):
        gap = float(random.uniform(0, 1.2))
        lists[f"u{k}"] = [Sentence("a", -2.0, 1), Sentence("ab", -2.0 - gap, 2)]
        right[f"u{k}"] = "ab" if gap < 0.5 else "a"
    return lists, right


@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_fit_is_that_of_a_loop(n):
    lists, right = some_lists(n)

    def errors_of(keys, bonus):
        search = LengthSearch(1, bonus)
        chosen = {k: max(lists[k], key=lambda one: score(one, search)) for k in keys}
        return sum(chosen[k].text != right[k] for k in keys)

    def best(keys):
        order = sorted(BONUSES, key=lambda b: (b is not None, abs(b or 0.0)))
        return min(order, key=lambda bonus: errors_of(keys, bonus))

    found = fit_bonus(lists, lambda key, text: int(text != right[key]))
    assert found.bonus == best(list(lists))
    assert found.errors == errors_of(list(lists), found.bonus)
    assert found.before == sum(text != "a" for text in right.values())
    assert found.least == 0
    held_out = 0
    for fold in range(5):
        keys = list(lists)
        rest = [key for k, key in enumerate(keys) if k % 5 != fold]
        held_out += errors_of(keys[fold::5], best(rest))
    assert found.held_out == held_out
    if n == 40:
        assert found.bonus == 0.5 and found.errors == 0


def score(one, search):
    if search.bonus is None:
        return one.score / (one.n_tokens + 1)
    return one.score + search.bonus * one.n_tokens


def test_utterances_left_out_of_the_fit_decide_whether_it_helps(recipe, capsys):
    """What fires by itself is right: no bonus can be better."""
    model = model_files(recipe / "exp", **CHANGES)
    write_data(recipe / "dev", chosen_texts(model, None, recipe))
    line = error_line(main, capsys, "--model", "exp", "--data", "dev", *UNIT)
    assert "does not help" in line
    assert not (recipe / "exp/config_length.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "none"], "none/wav.scp is missing"),
        (["--data", "silent"], "silent has no text: a fit needs transcripts"),
        (["--data", "dev", "--slack", "0"], "length_conf.slack is 0"),
        (["--data", "dev", "--utterances", "0"], "write at least 1"),
        (["--bonus", "nan"], "length_conf.bonus is nan"),
        (["--bonus", "1", "-o", "exp/1epoch.pth/x.yaml"], "exp/1epoch.pth"),
    ],
)
def test_bad_input_is_one_line(recipe, capsys, words, message):
    model_files(recipe / "exp", **CHANGES)
    write_data(recipe / "dev", {"u0": "".join(TOKENS[3:6])})
    write_data(recipe / "silent", {"u0": "A"})
    (recipe / "silent/text").unlink()
    line = error_line(main, capsys, "--model", "exp", *words)
    assert re.search(re.escape(message), line)
    assert not (recipe / "exp/config_length.yaml").exists()


def test_a_model_that_does_not_fire_is_refused(recipe, capsys):
    conf = {"decoder": "transformer", "decoder_conf": {"attention_heads": 2}}
    conf |= {"model": "hybrid", "model_conf": {"ctc_weight": 0.5}}
    model_files(recipe / "exp", **CHANGES, **conf)
    write_data(recipe / "dev", {"u0": "A"})
    for words in (["--data", "dev"], ["--bonus", "mean"]):
        line = error_line(main, capsys, "--model", "exp", *words)
        assert "decoder: transformer: length_conf is for CIF" in line
    assert not (recipe / "exp/config_length.yaml").exists()
