"""Every format is read back by a parser that is not ours."""

import csv
import html
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt
import webvtt
from hypothesis import HealthCheck, given, settings
from praatio import textgrid
from recognitions import LETTERS, english, recognition, recognitions

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.inference.recognition import Flag, Recognition, Token
from espnet_cif_hkd.inference.subtitles import Limits, cues
from espnet_cif_hkd.inference.units import plain
from espnet_cif_hkd.inference.writers import FORMATS, formats_of, write
from espnet_cif_hkd.inference.writers.subtitle import clock
from espnet_cif_hkd.inference.writers.verbose_json import recognition_of, verbose

# Words that every format must survive.
NASTY = [
    "a-->b",
    "<i>x</i>",
    "R&B",
    '"quoted"',
    "&amp;",
    "--->",
    "{\\an8}",
    "don't",
    "é",
]
HARD = recognition([(word, i * 1.0, i + 0.6) for i, word in enumerate(NASTY)])
few = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def shown(found: Recognition) -> list[tuple[int, int, str]]:
    return [
        (round(cue.start * 1000), round(cue.end * 1000), "\n".join(cue.lines))
        for cue in cues(found)
    ]


def read_srt(text: str) -> list[tuple[int, int, str]]:
    def ms(delta) -> int:
        return round(delta.total_seconds() * 1000)

    return [(ms(one.start), ms(one.end), one.content) for one in srt.parse(text)]


def read_vtt(text: str) -> list[tuple[int, int, str]]:
    def ms(stamp: str) -> int:
        hours, minutes, seconds = stamp.split(":")
        return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)

    found = webvtt.from_string(text)
    # The parser keeps the escapes.
    return [(ms(one.start), ms(one.end), html.unescape(one.text)) for one in found]


@few
@given(recognitions(LETTERS))
def test_srt(found: Recognition) -> None:
    content = [(*times, text.replace("-->", "->")) for *times, text in shown(found)]
    assert read_srt(write(found, "a", "srt")) == content


@few
@given(recognitions(LETTERS))
def test_vtt(found: Recognition) -> None:
    assert read_vtt(write(found, "a", "vtt")) == shown(found)


def test_subtitles_with_markup_and_arrows() -> None:
    read = read_srt(write(HARD, "a", "srt"))
    text = " ".join(text.replace("\n", " ") for *_, text in read)
    assert text == " ".join(NASTY).replace("--->", "->").replace("-->", "->")
    vtt = write(HARD, "a", "vtt")
    bodies = [line for line in vtt.splitlines() if not line[:2].isdigit()]
    assert not any("-->" in line or "<" in line for line in bodies)
    read = read_vtt(vtt)
    assert " ".join(text.replace("\n", " ") for *_, text in read) == " ".join(NASTY)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "00:00:00,000"),
        (0.0004, "00:00:00,000"),
        (59.9996, "00:01:00,000"),
        (3599.9999, "01:00:00,000"),
        (7325.25, "02:02:05,250"),
        (360000.0, "100:00:00,000"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds, ",") == text


@few
@given(recognitions(LETTERS))
def test_tsv(found: Recognition) -> None:
    rows = csv.reader(
        io.StringIO(write(found, "a", "tsv")), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    head, *rows = rows
    assert head == ["start", "end", "text"]
    assert rows == [
        [f"{one.start * 1000:.0f}", f"{one.end * 1000:.0f}", plain(one.text)]
        for one in found.segments
    ]


@few
@given(recognitions(LETTERS))
def test_json(found: Recognition) -> None:
    fields = json.loads(write(found, "talk", "json"))
    assert recognition_of(fields) == found
    assert fields["task"] == "transcribe" and fields["name"] == "talk"
    for segment in fields["segments"]:
        words = fields["words"][segment["first"] : segment["last"]]
        assert segment["tokens"] == [
            token["id"]
            for word in words
            for token in fields["tokens"][word["first"] :][:1]
        ]
        assert segment["avg_logprob"] == pytest.approx(math.log(0.5))
    required = {"id", "seek", "start", "end", "text", "tokens", "temperature"}
    required |= {"avg_logprob", "compression_ratio", "no_speech_prob"}
    assert all(required <= set(segment) for segment in fields["segments"])
    assert all({"word", "start", "end"} <= set(word) for word in fields["words"])
    assert {"language", "duration", "text", "words", "segments"} <= set(fields)


def test_json_without_confidences_or_with_warnings() -> None:
    one = recognition([("a", 0.0, 0.5), ("b", 0.5, 1.0)], confidence=None)
    assert verbose(one)["segments"][0]["avg_logprob"] == -1.25 / 2
    flagged = Recognition(
        *(one.text, one.tokens, one.words, one.segments, 1.0, None, (one, one)),
        flags=(Flag("missing", 0.2, 0.4, 0.9),),
    )
    fields = json.loads(write(flagged, "", "json"))
    assert fields["segments"][0]["avg_logprob"] == 0.0
    assert "name" not in fields
    assert recognition_of(fields) == flagged


@few
@given(recognitions(LETTERS))
def test_ctm(found: Recognition) -> None:
    lines = write(found, "my talk", "ctm").splitlines()
    assert len(lines) == len(found.words)
    for line, word in zip(lines, found.words):
        name, channel, start, duration, text, confidence = line.split(" ")
        assert (name, channel, text) == ("my_talk", "1", word.text)
        assert float(start) == pytest.approx(word.start, abs=6e-4)
        assert float(start) + float(duration) == pytest.approx(word.end, abs=6e-4)
        assert float(duration) > 0 and float(confidence) == 0.5


def test_ctm_without_confidence_and_with_a_name_like_a_comment() -> None:
    one = recognition([("a", 0.0, 0.5)], confidence=None)
    assert write(one, ";;x y", "ctm") == "_;x_y 1 0.000 0.500 a\n"


@few
@given(recognitions(LETTERS))
def test_textgrid(tmp_path: Path, found: Recognition) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(write(found, "a", "textgrid"), encoding="utf-8")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("words", "tokens")
    for name, parts in (("words", found.words), ("tokens", found.tokens)):
        tier = grid.getTier(name)
        entries = tier.entries
        assert entries[0].start == tier.minTimestamp == 0
        assert entries[-1].end == tier.maxTimestamp == max(found.duration, 0.001)
        for one, after in itertools.pairwise(entries):
            assert one.end == after.start
            assert one.label or after.label, "two silences are one"
        spoken = [entry for entry in entries if entry.label]
        assert [entry.label for entry in spoken] == [plain(one.text) for one in parts]
        for entry, part in zip(spoken, parts):
            assert entry.start == pytest.approx(part.start, abs=1e-6)
            assert entry.end == pytest.approx(part.end, abs=1e-6)


def test_textgrid_with_overlaps_and_quotes(tmp_path: Path) -> None:
    found = recognition([('say "a"', 0.0, 0.5), ("b", 0.4, 0.7), ("c", 0.4, 1.0)])
    path = tmp_path / "a.TextGrid"
    path.write_text(write(found, "a", "textgrid"))
    entries = textgrid.openTextgrid(str(path), True).getTier("words").entries
    assert [(e.start, e.end, e.label) for e in entries] == [
        (0.0, 0.4, 'say "a"'),
        (0.4, 0.55, "b"),
        (0.55, 1.0, "c"),
    ]


def test_textgrid_has_no_white_space(tmp_path: Path) -> None:
    one = recognition([("a", 0.0, 0.5), ("b", 0.6, 1.0)], spaces=False)
    space = Token(" ", "<space>", 1, 0.5, 0.6)
    tokens = (one.tokens[0], space, one.tokens[1])
    path = tmp_path / "a.TextGrid"
    path.write_text(write(Recognition("a b", tokens, (), (), 1.0), "a", "textgrid"))
    entries = textgrid.openTextgrid(str(path), True).getTier("tokens").entries
    assert [(e.start, e.end, e.label) for e in entries] == [
        (0.0, 0.5, "a"),
        (0.5, 0.6, ""),
        (0.6, 1.0, "b"),
    ]


def test_kaldi_text() -> None:
    found = recognition([("so", 0.1, 0.4), ("far", 0.4, 0.9)])
    assert write(found, "my talk", "text") == "my_talk so far\n"
    assert write(Recognition(duration=1.0), "b", "text") == "b\n"
    with pytest.raises(UserError, match="format kaldi has 2 files"):
        write(found, "a", "kaldi")


@few
@given(recognitions(LETTERS))
def test_kaldi_segments(found: Recognition) -> None:
    text, segments = (output.write(found, "my talk") for output in FORMATS["kaldi"])
    spoken = [line.split(" ", 1) for line in text.splitlines()]
    cut = [line.split(" ") for line in segments.splitlines()]
    assert [name for name, _ in spoken] == [name for name, *_ in cut]
    assert [name for name, *_ in cut] == sorted({name for name, *_ in cut})
    assert [words for _, words in spoken] == [plain(one.text) for one in found.segments]
    for (_, recording, start, end), one in zip(cut, found.segments):
        assert recording == "my_talk" and float(start) < float(end)
        assert (float(start), float(end)) == pytest.approx(
            (one.start, one.end), abs=6e-4
        )


def test_kaldiio_cuts_the_segments(tmp_path: Path) -> None:
    kaldiio = pytest.importorskip("kaldiio", reason="ESPnet 202611 comes without it")
    words = [("so", 0.1, 0.4), ("far", 0.4, 0.9), ("good", 3.0, 3.5)]
    text, segments = (
        output.write(recognition(words, duration=4.0), "my talk")
        for output in FORMATS["kaldi"]
    )
    (tmp_path / "segments").write_text(segments)
    wave = np.arange(4 * 8000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    scp = tmp_path / "wav.scp"
    scp.write_text(f"my_talk {tmp_path}/a.wav\n")
    cut = kaldiio.load_scp(str(scp), segments=str(tmp_path / "segments"))
    assert list(cut) == [line.split()[0] for line in text.splitlines()]
    for (_, samples), start, end in zip(cut.values(), (0.1, 3.0), (0.9, 3.5)):
        assert (samples == wave[int(start * 8000) : int(end * 8000)]).all()


def test_text() -> None:
    two = recognition([("so", 0.1, 0.4), ("far", 3.4, 3.9)])
    assert write(two, "a", "txt") == "so\nfar\n"
    assert write(Recognition(duration=2.0), "a", "txt") == "\n"


def test_nothing_is_a_valid_file_of_each_format(tmp_path: Path) -> None:
    for found in (Recognition(), Recognition(duration=2.0)):
        assert read_srt(write(found, "a", "srt")) == []
        assert read_vtt(write(found, "a", "vtt")) == []
        assert write(found, "a", "tsv") == "start\tend\ttext\n"
        assert write(found, "a", "ctm") == ""
        assert recognition_of(json.loads(write(found, "a", "json"))) == found
        path = tmp_path / "a.TextGrid"
        path.write_text(write(found, "a", "textgrid"))
        (entry,) = textgrid.openTextgrid(str(path), True).getTier("words").entries
        assert entry.label == ""


def test_words_without_segments_are_one_segment() -> None:
    one = english("so far so good")
    bare = Recognition(one.text, one.tokens, one.words, duration=one.duration)
    assert write(bare, "a", "tsv") == write(one, "a", "tsv")
    assert write(bare, "a", "txt") == "so far so good\n"


def test_formats_and_limits_by_name() -> None:
    assert len(formats_of(["all"])) == sum(map(len, FORMATS.values()))
    assert [one.path for one in formats_of(["srt", " SRT"])] == ["{name}.srt"]
    with pytest.raises(UserError, match="no format 'doc': choose from txt, json"):
        formats_of(["txt", "doc"])
    (output,) = formats_of(["vtt"], Limits(line=9, lines=1))
    assert "so far so\n\n" in output.write(english("so far so good"), "a")


def test_control_characters_are_left_out() -> None:
    found = recognition([("a\x00b", 0.0, 0.5), ("c\ud800", 0.5, 1.0)])
    for form in ("txt", "srt", "vtt", "tsv", "ctm", "textgrid", "text"):
        text = write(found, "x", form)
        assert text.encode() and "\x00" not in text
