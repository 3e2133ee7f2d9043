"""Results with times from every search, and the model's files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_model import CIF_CONFORMER, TOKENS, tiny_config, tiny_model
from tiny_speech import CHANGES, RATE, noise
from transducer_parts import TRANSDUCER, tiny_transducer, transducer_config

import espnet_cif_hkd
from espnet_cif_hkd import Speech2Text, UserError
from espnet_cif_hkd.inference.calibration import (
    Calibration,
    calibration_file,
    write_calibration,
)
from espnet_cif_hkd.inference.recognizer import Recognizer
from espnet_cif_hkd.inference.spans import Timing
from espnet_cif_hkd.io.digest import sha256

ENCODER = {
    "encoder": CIF_CONFORMER["encoder"],
    "encoder_conf": CIF_CONFORMER["encoder_conf"],
}
SYSTEMS = {
    "cif": {},
    "batches": ENCODER,
    "cif without CTC": {"model_conf": {"ctc_weight": 0.0}},
    "hybrid": {
        "model": "espnet",
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    },
    "transducer": {**TRANSDUCER, "model_conf": {"ctc_weight": 0.3}},
    "one pass": {"model_conf": {"nar_conf": {"attention_heads": 2, "num_blocks": 1}}},
}


def model_folder(top: Path, **changes) -> Path:
    top.mkdir(parents=True, exist_ok=True)
    changes = {**CHANGES, **changes}
    is_transducer = changes.get("decoder") == "transducer"
    config = (transducer_config if is_transducer else tiny_config)(
        token_type="char", **changes
    )
    (top / "config.yaml").write_text(yaml.safe_dump(config))
    if is_transducer:
        model = tiny_transducer(std=0.5, **changes)
    else:
        model = tiny_model(**changes)
    torch.save(model.state_dict(), top / "1epoch.pth")
    return top


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {
        name: model_folder(top / name.replace(" ", "_"), **changes)
        for name, changes in SYSTEMS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_text_is_that_without_times_and_all_invariants_hold(
    folders: dict[str, Path], system: str, greedy: bool
) -> None:
    options = {"one_pass": True} if system == "one pass" and greedy else {}
    recognizer = Recognizer(folders[system], greedy=greedy, beam_size=2, **options)
    decode = recognizer.speech2text
    waves = [noise(0.3), noise(0.01), noise(0.0), noise(0.5, seed=1)]
    found = recognizer.recognise(waves)
    assert any(one.tokens for one in found)
    results, decode.results = decode.results, None
    plain = [decode(wave)[0] for wave in waves]
    decode.results = results
    for wave, one, (text, _, ids, hypothesis) in zip(waves, found, plain):
        one.validate()
        assert one.text == text
        assert [token.id for token in one.tokens] == ids
        assert one.duration == len(wave) / RATE
        if one.tokens:
            assert one.score == pytest.approx(float(hypothesis.score), abs=1e-4)
            unknown = [token.confidence is None for token in one.tokens]
            # A transducer has CTC only, which needs a blank between equal tokens.
            assert not any(unknown) or (system == "transducer" and all(unknown))
    assert recognizer.recognise(waves[0]) == found[0] or system == "batches"
    assert recognizer.recognise([]) == []


@pytest.mark.parametrize("one_pass", [True, False])
def test_confidences_are_those_of_the_decoder_that_chose(
    folders: dict[str, Path], one_pass: bool
) -> None:
    recognizer = Recognizer(folders["one pass"], one_pass=one_pass)
    frames = recognizer.frames(noise(1.0))
    assert frames is not None
    [[(*_, hypothesis)]] = recognizer.speech2text.search([frames.hidden])
    [found] = recognizer.recognitions([frames])
    chosen = hypothesis.states["logp"].exp().tolist()
    assert [one.confidence for one in found.tokens] == pytest.approx(chosen, abs=1e-6)
    [[one]] = recognizer.speech2text.hypotheses([frames])
    assert np.exp(one.logp) == pytest.approx(chosen)


def test_the_greedy_search_knows_what_the_decoder_says_of_its_tokens(
    folders: dict[str, Path],
) -> None:
    recognizer = Recognizer(folders["cif"])
    frames = recognizer.frames(noise(1.0))
    assert frames is not None
    [[(_, _, ids, hypothesis)]] = recognizer.speech2text.search([frames.hidden])
    again = recognizer.results.evidence(frames, ids).logp
    np.testing.assert_allclose(hypothesis.states["logp"], again, atol=1e-5)


def test_all_hypotheses_of_a_beam(folders: dict[str, Path]) -> None:
    recognizer = Recognizer(folders["cif"], greedy=False, beam_size=3, nbest=3)
    found = recognizer.recognise(noise(0.5)).validate()
    assert len(found.nbest) > 1
    assert found.nbest[0].text == found.text
    scores = [one.score for one in found.nbest]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_many_utterances_come_back_in_order(folders: dict[str, Path]) -> None:
    recognizer = Recognizer(folders["batches"], batch_size=2)
    waves = [
        noise(seconds, seed=n) for n, seconds in enumerate([1.1, 0.4, 2.0, 0.7, 1])
    ]
    found = recognizer.recognise(waves)
    assert [one.duration for one in found] == [len(wave) / RATE for wave in waves]
    waves[2] = np.full(3, np.nan)
    with pytest.raises(UserError, match=r"samples\[2\]: 3 of 3 values are NaN"):
        recognizer.recognise(waves)


def test_times_come_from_the_frames_not_from_the_duration(
    folders: dict[str, Path],
) -> None:
    """The same frames with another number of frames after them."""
    recognizer = Recognizer(folders["cif"])
    frames = recognizer.frames(noise(1.0))
    assert frames is not None
    # conv2d: 4 × 10 ms; 25 ms windows play no part, the frontend is centred.
    assert frames.times.stride == pytest.approx(0.04)
    assert frames.times.offset == pytest.approx(0.03)


@pytest.mark.parametrize("system", ["cif", "cif without CTC", "hybrid", "transducer"])
def test_a_known_text_gets_times(folders: dict[str, Path], system: str) -> None:
    recognizer = Recognizer(folders[system])
    found = recognizer.align(noise(2.0), "ABC  DE").validate()
    assert found.text == "ABC DE"
    assert [word.text for word in found.words] == ["ABC", "DE"]
    assert recognizer.align(noise(2.0), "abc de") == found
    unknown = recognizer.align(noise(2.0), "A<unk>B").validate()
    assert [TOKENS[token.id] for token in unknown.tokens] == ["A", "<unk>", "B"]
    with pytest.raises(UserError, match=r"has no token for 'X', '!' of the text"):
        recognizer.align(noise(2.0), "AXB!")
    assert recognizer.align(noise(2.0), " ").tokens == ()
    with pytest.raises(UserError, match=r"181 s .* at most 180 are .*: divide"):
        recognizer.align(noise(181), "ABC")
    with pytest.raises(UserError, match="too short for the text"):
        recognizer.align(noise(0.01), "ABC")


def test_the_calibration_is_used(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    before = Recognizer(folder).recognise(noise(1.0))
    model = folder / "1epoch.pth"
    calibration = Calibration(sha256(model), Timing(0.0, 0.3), (2.0, *[0.0] * 5))
    write_calibration(model, calibration)
    after = Recognizer(folder).recognise(noise(1.0))
    sure = 1 / (1 + np.exp(-2.0))
    assert [one.confidence for one in after.tokens] == pytest.approx(
        [sure] * len(after.tokens)
    )
    assert [one.start for one in after.tokens] != [one.start for one in before.tokens]
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(UserError, match="is of another model"):
        Recognizer(folder)
    # Without times it is not read.
    assert Speech2Text(folder / "config.yaml", model, beam_size=1)


SEARCHES = {
    "greedy": {"greedy": True, "lm": False},
    "beam": {"greedy": False, "lm": False},
    "lm": {"greedy": False, "lm": True},
    "one_pass": {"greedy": True, "lm": False, "one_pass": True},
    "fallback": {
        "greedy": True,
        "lm": False,
        "one_pass": True,
        "fallback_below": 0.3,
    },
}


@pytest.mark.parametrize("used", ["greedy", "beam", "one_pass", "fallback"])
@pytest.mark.parametrize("fitted", SEARCHES)
def test_confidences_of_another_search_are_noted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fitted: str, used: str
) -> None:
    model = model_folder(tmp_path / "model", **SYSTEMS["one pass"]) / "1epoch.pth"
    search = SEARCHES[fitted]
    weights = (2.0, *[0.0] * 5)
    known = Calibration(sha256(model), Timing(), weights, report={"search": search})
    write_calibration(model, known)
    options = {k: v for k, v in SEARCHES[used].items() if k != "lm"}
    recognizer = Recognizer(tmp_path / "model", beam_size=2, **options)
    assert recognizer.search == SEARCHES[used]
    for seed in range(2):
        recognizer.recognise(noise(0.3, seed))
    notes = [one for one in caplog.messages if "was fitted to" in one]
    assert len(notes) == (fitted != used)
    # Times do not depend on the search.
    caplog.clear()
    write_calibration(model, replace(known, weights=None))
    Recognizer(tmp_path / "model", beam_size=2, **options)
    assert not [one for one in caplog.messages if "was fitted to" in one]


def test_a_model_without_cif_and_ctc_knows_no_times(tmp_path: Path) -> None:
    changes = {**SYSTEMS["hybrid"], "model_conf": {"ctc_weight": 0.0}}
    with pytest.raises(UserError, match=r"neither 'decoder: cif' nor CTC"):
        Recognizer(model_folder(tmp_path / "model", **changes))


def test_a_model_without_frontend_is_refused(tmp_path: Path) -> None:
    changes = {"frontend": None, "frontend_conf": {}, "input_size": 6}
    with pytest.raises(UserError, match="reads features from files"):
        Recognizer(model_folder(tmp_path / "model", **changes))


def test_an_unknown_sampling_rate_is_refused(tmp_path: Path) -> None:
    changes = {"frontend": "sliding_window", "frontend_conf": {"hop_length": 80}}
    changes["encoder_conf"] = {**CHANGES["encoder_conf"], "input_layer": "linear"}
    with pytest.raises(UserError, match="sampling rate is unknown: write 'fs: 16000'"):
        Recognizer(model_folder(tmp_path / "model", **changes))


def test_the_sampling_rate_is_the_frontends(folders: dict[str, Path]) -> None:
    assert Recognizer(folders["cif"]).sampling_rate == RATE
    assert Recognizer(folders["cif"]).tokens == tuple(TOKENS)


def test_a_packed_model_is_unpacked_once_with_its_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espnet2.main_funcs import pack_funcs

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = model_folder(Path("exp/asr_x"))
    model = folder / "1epoch.pth"
    write_calibration(model, Calibration(sha256(model), Timing(0.01, 0.23)))
    pack_funcs.pack(
        {"asr_model_file": str(model)},
        {"asr_train_config": str(folder / "config.yaml")},
        "model.zip",
        [str(calibration_file(model))],
    )
    for _ in range(2):
        recognizer = Recognizer("model.zip")
        assert recognizer.results.calibration.timing == Timing(0.01, 0.23)
        assert tmp_path / "cache" in recognizer.model_file.parents
    assert len(list((tmp_path / "cache/espnet_cif_hkd/models").glob("*/"))) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, r"neither a folder nor a file|no such model"),
        ("no/such/folder", None, r"no such model; give the folder"),
        ("a.zip", b"no zip", r"a.zip is no packed model"),
        ("a.zip", None, r"no such model"),
        ("9epoch.pth", None, r"9epoch.pth is missing"),
        ("9epoch.pth", b"", r"config.yaml is missing"),
    ],
)
def test_what_is_no_model_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=message) as found:
        Recognizer(name)
    assert "\n" not in str(found.value)


def test_an_archive_with_outside_names_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("meta.yaml", "files: {}\nyaml_files: {}\n")
        archive.writestr("../outside", "")
    with pytest.raises(UserError, match=r"'../outside' would leave its folder"):
        Recognizer(tmp_path / "a.zip")


def test_the_best_checkpoint_of_a_folder(tmp_path: Path) -> None:
    from espnet_cif_hkd.inference.model_files import model_files as files

    with pytest.raises(UserError, match="has no checkpoint"):
        files(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    for name in (
        *("checkpoint.pth", "9epoch.pth", "10epoch.pth", "valid.loss.best.pth"),
        *("valid.loss.ave_5best.pth", "valid.acc.ave_5best.pth", "valid.acc.ave.pth"),
    ):
        (tmp_path / name).touch()
    order = []
    for _ in range(6):
        best = Path(files(tmp_path)["asr_model_file"])
        order.append(best.name)
        best.unlink()
    assert order == [
        *("valid.acc.ave.pth", "valid.acc.ave_5best.pth", "valid.loss.ave_5best.pth"),
        *("valid.loss.best.pth", "10epoch.pth", "9epoch.pth"),
    ]


def test_paths_of_the_recipe_are_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path / "recipe/exp/asr_x")
    statistics = tmp_path / "recipe/exp/stats/feats_stats.npz"
    statistics.parent.mkdir()
    np.savez(statistics, count=10, sum=np.zeros(8), sum_square=np.full(8, 10.0))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config.update(normalize="global_mvn", output_dir="exp/asr_x")
    config["normalize_conf"] = {"stats_file": "exp/stats/feats_stats.npz"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = torch.load(folder / "1epoch.pth", weights_only=True)
    mean = {"normalize.mean": torch.zeros(8), "normalize.std": torch.ones(8)}
    torch.save({**state, **mean}, folder / "1epoch.pth")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Recognizer(folder).recognise(noise(1.0)).validate()
    assert Path.cwd() == tmp_path / "elsewhere"


def test_speech2text_returns_results_from_pretrained_as_well(
    folders: dict[str, Path],
) -> None:
    files = {
        "asr_train_config": folders["cif"] / "config.yaml",
        "asr_model_file": folders["cif"] / "1epoch.pth",
    }
    built = espnet_cif_hkd.Speech2Text.from_pretrained(
        **files, greedy=True, return_times=True
    )
    assert built(noise(1.0)) == Recognizer(folders["cif"]).recognise(noise(1.0))
    with pytest.raises(UserError, match="return_times does not work with multi_asr"):
        Speech2Text(**files, beam_size=1, return_times=True, multi_asr=True)
