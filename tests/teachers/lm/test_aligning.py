"""Alignment of data folders: resumed, refused and reported; without pocketsphinx."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken_noise import LEXICON, RATE, TEXTS, TOKENS, StandIn, burst, data_dir

from espnet_cif_hkd.cli import align_units
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import lock
from espnet_cif_hkd.teachers.lm import aligning
from espnet_cif_hkd.teachers.lm.spans import Alignments

FILES = ("phone.ctm", "state.ctm", "state_tokens.txt")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(aligning, "Aligner", StandIn)
    monkeypatch.setattr(StandIn, "aligned", [])
    monkeypatch.setattr(StandIn, "fails", set())
    return StandIn


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return path


def align(out: Path, lexicon: Path, *folders: Path, options: str = "") -> None:
    args = ["--data_dir", *map(str, folders), "--out_dir", str(out), "--fs", str(RATE)]
    args += ["--lexicon", str(lexicon), *options.split()]
    align_units.run(align_units.get_parser().parse_args(args))


def content(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def test_phones_and_states_in_seconds(tmp_path: Path, lexicon: Path) -> None:
    align(tmp_path / "out", lexicon, data_dir(tmp_path / "data"))
    phones = Alignments(tmp_path / "out" / "phone.ctm", TOKENS)
    ids, times = phones.get("u1") or ([], [])
    assert [TOKENS[i] for i in ids] == ["SH", "IY1", "S", "IY", "Z"]
    starts = 0.1078 + 0.03 * np.arange(5)
    np.testing.assert_allclose(times, np.stack([starts, starts + 0.03], 1), atol=1e-5)
    tokens = (tmp_path / "out" / "state_tokens.txt").read_text().split()
    assert tokens[:2] == ["<blank>", "<unk>"] and tokens[-1] == "<sos/eos>"
    assert tokens[2:-1] == sorted(tokens[2:-1], key=int)
    states = Alignments(tmp_path / "out" / "state.ctm", tokens)
    assert len(states) == len(phones) == len(TEXTS)
    ids, times = states.get("u3") or ([], [])
    assert [tokens[i] for i in ids] == ["0", "1", "2", "9", "10", "11"]
    np.testing.assert_allclose(times[0], (0.1078, 0.1178), atol=1e-5)


@pytest.mark.parametrize("stop_at", [0, 1, 3])
@pytest.mark.parametrize("cut", [0, 7])
def test_a_stopped_run_continues(
    stop_at: int,
    cut: int,
    tmp_path: Path,
    lexicon: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out = data_dir(tmp_path / "data"), tmp_path / "out"
    align(tmp_path / "complete", lexicon, data)
    StandIn.aligned.clear()
    with monkeypatch.context() as patch:
        patch.setattr(StandIn, "stop_at", stop_at)
        with pytest.raises(KeyboardInterrupt):
            align(out, lexicon, data)
    assert not any((out / name).exists() for name in FILES)
    log = out / "alignments.jsonl"
    size = len(log.read_bytes())
    with log.open("r+b") as stream:  # a killed process has written part of a line
        stream.truncate(max(0, size - cut))
    lost = 1 if cut and stop_at else 0
    align(out, lexicon, data)
    assert StandIn.aligned == [
        *list(TEXTS.values())[:stop_at],
        *list(TEXTS.values())[stop_at - lost :],
    ]
    assert content(out) == content(tmp_path / "complete")


def test_only_changed_utterances_are_aligned_again(
    tmp_path: Path, lexicon: Path
) -> None:
    data, out = data_dir(tmp_path / "data"), tmp_path / "out"
    align(out, lexicon, data)
    before = content(out)
    StandIn.aligned.clear()
    align(out, lexicon, data)
    assert StandIn.aligned == [] and content(out) == before
    soundfile.write(data / "u2.wav", burst(1.2, 0.3, 0.9, seed=77), RATE)
    align(out, lexicon, data)
    assert StandIn.aligned == [TEXTS["u2"]] and content(out) == before
    lexicon.write_text(LEXICON.replace("us AH0 S", "us AH0 Z"))
    StandIn.aligned.clear()
    align(out, lexicon, data)
    assert StandIn.aligned == [TEXTS["u2"], TEXTS["u3"], TEXTS["u4"]]
    assert content(out) != before
    align(tmp_path / "fresh", lexicon, data)
    assert content(out) == content(tmp_path / "fresh")


def test_failed_utterances_are_left_out_and_counted(
    tmp_path: Path, lexicon: Path, caplog: pytest.LogCaptureFixture
) -> None:
    StandIn.fails.add(TEXTS["u2"])
    data, out = data_dir(tmp_path / "data"), tmp_path / "out"
    message = r"1 of 4 utterances have no alignment \(u2\), more than 10 %: .*"
    with pytest.raises(UserError, match=f"{message}raise --max_missing") as caught:
        align(out, lexicon, data)
    assert "\n" not in str(caught.value)
    assert not (out / "phone.ctm").exists()
    assert "1 utterances not aligned: no alignment" in caplog.text
    # What is computed is kept.
    align(out, lexicon, data, options="--max_missing 25")
    assert len(StandIn.aligned) == len(TEXTS)
    alignments = Alignments(out / "phone.ctm", TOKENS)
    assert len(alignments) == 3 and alignments.get("u2") is None


def test_words_without_pronunciation_are_reported_first(
    tmp_path: Path, lexicon: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {**TEXTS, "u5": "SHE SEES QUEEN QUEEN", "u6": "QUEEN"}
    data, out = data_dir(tmp_path / "data", texts), tmp_path / "out"
    with pytest.raises(UserError, match=r"2 of 6 .*\(u5, u6\), more than 10 %"):
        align(out, lexicon, data)
    assert StandIn.aligned == []
    assert "QUEEN (3)" in caplog.text
    align(out, lexicon, data, options="--max_missing 34")
    assert len(Alignments(out / "phone.ctm", TOKENS)) == 4
    with lexicon.open("a") as stream:
        stream.write("QUEEN S IY Z\n")
    StandIn.aligned.clear()
    align(out, lexicon, data)
    assert StandIn.aligned == [texts["u5"], texts["u6"]]


def test_several_folders(tmp_path: Path, lexicon: Path) -> None:
    names = list(TEXTS)
    first = data_dir(tmp_path / "a", {n: TEXTS[n] for n in names[2:]})
    second = data_dir(tmp_path / "b", {n: TEXTS[n] for n in names[:2]})
    align(tmp_path / "out", lexicon, first, second)
    align(tmp_path / "one", lexicon, data_dir(tmp_path / "data"))
    assert content(tmp_path / "out") == content(tmp_path / "one")
    with pytest.raises(UserError, match="u1 is also in another --data_dir"):
        align(tmp_path / "out", lexicon, tmp_path / "data", second)


def test_segments_are_parts_of_recordings(tmp_path: Path, lexicon: Path) -> None:
    data = data_dir(tmp_path / "data", {"u1": TEXTS["u1"]})
    (data / "segments").write_text("s1 u1 0.2 0.9\ns2 u1 0.5 1.1\n")
    (data / "text").write_text("s1 SHE\ns2 US\n")
    align(tmp_path / "out", lexicon, data)
    log = (tmp_path / "out" / "alignments.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in log]
    assert [one["utterance"] for one in found] == ["s1", "s2"]
    assert [one["seconds"] for one in found] == pytest.approx([0.7, 0.6], abs=1e-3)


def test_spans_end_with_the_recording(tmp_path: Path, lexicon: Path) -> None:
    data = data_dir(tmp_path / "data", {"u1": TEXTS["u1"]})
    soundfile.write(data / "u1.wav", burst(0.15, 0, 0.1), RATE)
    align(tmp_path / "out", lexicon, data)
    _, times = Alignments(tmp_path / "out" / "phone.ctm", TOKENS).get("u1") or ([], [])
    assert len(times) == 5 and float(np.max(times)) == pytest.approx(0.15, abs=1e-3)


@pytest.mark.parametrize(
    "options,message",
    [
        ("--nj 0", "--nj 0: write a number of processes from 1"),
        ("--max_missing 101", "--max_missing 101: write 0 to 100"),
        ("--fs fast", "--fs fast is not a sampling rate"),
        ("--fs 16k", "has 11025 Hz, but the configuration asks for 16000"),
    ],
)
def test_wrong_options(
    options: str, message: str, tmp_path: Path, lexicon: Path
) -> None:
    with pytest.raises(UserError, match=message):
        align(tmp_path / "out", lexicon, data_dir(tmp_path / "data"), options=options)


def test_wrong_files(tmp_path: Path, lexicon: Path) -> None:
    data, out = data_dir(tmp_path / "data"), tmp_path / "out"
    (data / "text").write_text("u1 SHE\n")
    with pytest.raises(UserError, match="no transcript of u2"):
        align(out, lexicon, data)
    (tmp_path / "pinyin.txt").write_text("she sh e4\n")
    with pytest.raises(UserError, match="sh is no phone of pocketsphinx's"):
        align(out, tmp_path / "pinyin.txt", data_dir(tmp_path / "data"))
    with pytest.raises(UserError, match="none is missing: make it by"):
        align(out, tmp_path / "none", data)
    out.mkdir(exist_ok=True)
    (out / "alignments.jsonl").write_text("x\n")
    with pytest.raises(UserError, match="is damaged: remove it"):
        align(out, lexicon, data)


def test_one_process_writes_at_a_time(tmp_path: Path, lexicon: Path) -> None:
    data, out = data_dir(tmp_path / "data"), tmp_path / "out"
    refused = pytest.raises(UserError, match="another process writes to")
    with lock.alone(out / ".align.lock", print), refused:
        align(out, lexicon, data)
    align(out, lexicon, data)
