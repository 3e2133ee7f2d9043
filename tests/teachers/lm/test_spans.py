"""Alignments: CTM files in and out, and the label of each frame."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.teachers.lm.spans import Alignments, ctm_lines, units_of_frames

LABELS = ["<blank>", "<unk>", "AH", "B", "17", "<sos/eos>"]


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "phone.ctm"
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    return path


def naive(times: list[tuple[float, float]], frames: FrameTimes, n: int) -> list[int]:
    """Loop over frames and spans, in whole steps of 0.1 ms."""
    found = []
    for frame in range(n):
        centre = round((frames.offset + frame * frames.stride) * 10_000)
        inside = [
            index
            for index, (start, end) in enumerate(times)
            if round(start * 10_000) <= centre < round(end * 10_000)
        ]
        found.append(inside[-1] if inside else -1)
    return found


@pytest.mark.parametrize("stride", [0.01, 0.02, 0.04, 0.08])
@pytest.mark.parametrize("offset", [0.0, 0.0125, 0.03])
def test_units_of_frames_against_a_loop(stride: float, offset: float) -> None:
    rng = random.Random(int(stride * 1000 + offset * 1e5))
    frames = FrameTimes(offset, stride)
    for _ in range(20):
        spans, at = [], 0.0
        for _ in range(rng.randint(0, 25)):
            # On the grid of 10 ms many boundaries are centres of frames.
            start = at + rng.choice([0, 0, 0.01 * rng.randint(1, 30)])
            at = start + 0.01 * rng.randint(0, 12)
            spans.append((start, at))
        n = rng.randint(0, 80)
        given = torch.tensor(spans, dtype=torch.float32).reshape(-1, 2)
        found = units_of_frames(given, frames, n)
        assert found.dtype == torch.int64 and found.shape == (n,)
        assert found.tolist() == naive(spans, frames, n)


def test_a_boundary_on_the_centre_of_a_frame_belongs_to_the_span_that_starts() -> None:
    for minutes in (0, 1, 10):
        shift = 60.0 * minutes
        grid = [shift + 0.01 * n for n in range(200)]
        times = torch.tensor([(a, a + 0.01) for a in grid], dtype=torch.float32)
        found = units_of_frames(times, FrameTimes(shift, 0.01), 200)
        assert found.tolist() == list(range(200))


def test_frames_outside_of_all_spans_have_none() -> None:
    times = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    found = units_of_frames(times, FrameTimes(0.05, 0.1), 6)
    assert found.tolist() == [-1, 0, -1, 1, -1, -1]
    assert units_of_frames(times[:0], FrameTimes(0.05, 0.1), 3).tolist() == [-1] * 3


def test_ctm_is_read_as_it_is_written(tmp_path: Path) -> None:
    rng = random.Random(3)
    utterances = {}
    for name in ("a-1", "b", "ü"):
        at, spans = 0.0, []
        for _ in range(rng.randint(1, 40)):
            at += 0.01 * rng.randint(0, 3)
            duration = 0.01 * rng.randint(1, 20)
            spans.append((at, duration, rng.choice(["AH", "B", "17"])))
            at += duration
        utterances[name] = spans
    text = "".join(ctm_lines(name, spans) for name, spans in utterances.items())
    alignments = Alignments(written(tmp_path, text), LABELS)
    assert len(alignments) == 3 and alignments.get("none") is None
    for name, spans in utterances.items():
        found = alignments.get(name)
        assert found is not None
        ids, times = found
        assert ids.dtype == np.int64 and times.dtype == np.float32
        assert [LABELS[i] for i in ids] == [label for _, _, label in spans]
        expected = [(start, start + duration) for start, duration, _ in spans]
        np.testing.assert_allclose(times, expected, atol=1e-4)


def test_comments_confidences_and_silences(tmp_path: Path) -> None:
    text = ";; made by hand\na A 0 0.1 SIL\na A 0.1 0.1 AH 0.9\na A 0.2 .1 B\n\n"
    text += "b 1 0 1 SIL\n"
    alignments = Alignments(written(tmp_path, text), LABELS)
    ids, times = alignments.get("a") or ([], [])
    assert list(ids) == [2, 3]
    np.testing.assert_allclose(times, [(0.1, 0.2), (0.2, 0.3)], atol=1e-6)
    ids, times = alignments.get("b") or ([], [])
    assert ids.shape == (0,) and times.shape == (0, 2)
    with_silence = Alignments(alignments.path, [*LABELS[:-1], "SIL", "<sos/eos>"])
    assert list((with_silence.get("a") or [[]])[0]) == [5, 2, 3]


@pytest.mark.parametrize(
    "line,reason",
    [
        ("a 1 0.3 0.1", "4 fields: write"),
        ("a 1 0.3 0.1 B 0.9 x", "7 fields: write"),
        ("a 1 zero 0.1 B", "zero is not a number of seconds"),
        ("a 1 nan 0.1 B", "nan is not a number of seconds"),
        ("a 1 0.3 -0.1 B", "-0.1 is not a number of seconds"),
        ("a 1 0.3 inf B", "inf is not a number of seconds"),
        ("a 1 0.1 0.1 B", "B begins at 0.1 s, before the end of the label above"),
        ("b 1 0 0.1 B\na 1 0.3 0.1 B", "a occurs again"),
        (b"a 1 0.3 0.1 \xff", "not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(line: str | bytes, reason: str, tmp_path: Path) -> None:
    data = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, b";;\na 1 0 0.3 AH\n" + data + b"\n")
    number = 3 + data.count(b"\n")
    with pytest.raises(UserError) as caught:
        Alignments(path, LABELS)
    assert str(caught.value).startswith(f"{path}, line {number}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.ctm is missing: make it by"):
        Alignments(tmp_path / "none.ctm", LABELS)


def test_labels_of_another_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [(0.1 * n, 0.1, "AH") for n in range(30)]
    lines[7] = (0.7, 0.1, "4711")
    path = written(tmp_path, ctm_lines("a", lines))
    alignments = Alignments(path, LABELS)
    assert alignments.n_unknown == 1 and "4711, line 8" in caplog.text
    assert list((alignments.get("a") or [[]])[0]).count(1) == 1
    with pytest.raises(UserError, match=r"30 of 30 labels are not .*AH, line 1\)"):
        Alignments(path, ["<blank>", "<unk>", "x", "<sos/eos>"])


def test_too_many_utterances_without_alignment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "".join(f"u{n} 1 0 1 AH\n" for n in range(9)))
    alignments = Alignments(path, LABELS)
    names = [f"u{n}" for n in range(10)]
    assert alignments.require(names[:9], 0, "max_missing") == 0
    assert not caplog.text
    assert alignments.require(names, 10, "max_missing") == 1
    assert "1 of 10 utterances have no alignment (u9)" in caplog.text
    message = r"1 of 10 .* \(u9\), more than 9.5 %: align them, or raise max_missing"
    with pytest.raises(UserError, match=message):
        alignments.require(names, 9.5, "max_missing")
