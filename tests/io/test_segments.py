"""Every field of ``segments`` is checked, with its file and line."""

from pathlib import Path

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.segments import OVERSHOOT, read_segments


def read(tmp_path: Path, line: str):
    path = tmp_path / "segments"
    path.write_text(f"good rec 0 1\n{line}\n", encoding="utf-8")
    return read_segments(path, {"rec"})[-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("u rec 0 1.5", (0.0, 1.5, None)),
        ("u\trec\t0.25\t-1", (0.25, -1.0, None)),
        ("u rec 0 -1.0", (0.0, -1.0, None)),
        ("u rec 1e-1 2 0", (0.1, 2.0, 0)),
        ("u rec 0 1 1", (0.0, 1.0, 1)),
    ],
)
def test_what_is_read(tmp_path: Path, line: str, expected: tuple) -> None:
    segment = read(tmp_path, line)
    assert (segment.begin, segment.end, segment.channel) == expected
    assert (segment.utterance, segment.recording) == ("u", "rec")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u", "1 columns"),
        ("u rec 1", "3 columns"),
        ("u rec 0 1 0 more", "6 columns"),
        ("u other 0 1", "the recording other is not in .*wav.scp"),
        ("u rec -0.15 1", "the begin -0.15"),
        ("u rec -1 1", "the begin -1"),
        ("u rec nan 1", "the begin nan"),
        ("u rec inf -1", "the begin inf"),
        ("u rec x 1", "the begin x"),
        ("u rec 0,5 1", "the begin 0,5"),
        ("u rec 2 1", "the end 1 is neither after the begin 2"),
        ("u rec 1 1", "the end 1 "),
        ("u rec 0 0", "the end 0 "),
        ("u rec 0 -2", "the end -2 "),
        ("u rec 0 inf", "the end inf "),
        ("u rec 0 nan", "the end nan "),
        ("u rec 0 end", "the end end "),
        ("u rec 0 1 A", "the channel A "),
        ("u rec 0 1 -1", "the channel -1 "),
        ("u rec 0 1 0.5", "the channel 0.5 "),
        ("good rec 0 1", "good occurs twice"),
    ],
)
def test_what_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"segments, line 2: .*{message}"):
        read(tmp_path, line)


def test_a_segment_must_be_inside_its_recording(tmp_path: Path) -> None:
    segment = read(tmp_path, "u rec 1 2")
    segment.check_duration(2.0)
    segment.check_duration(2.0 - OVERSHOOT)
    place = r"segments, line 2: u is 1 s to 2 s of rec, which lasts"
    with pytest.raises(UserError, match=rf"{place} 1.400 s"):
        segment.check_duration(1.4)
    with pytest.raises(UserError, match=rf"{place} 1.000 s"):
        segment.check_duration(1.0)
    with pytest.raises(UserError, match=r"1 s to its end of rec, which lasts 1\.000"):
        read(tmp_path, "u rec 1 -1").check_duration(1.0)
