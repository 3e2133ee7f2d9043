"""Times and delays of streams against known syllables, on cases computed by hand."""

import numpy as np
import pytest
from boundaries import Boundaries
from hsk_times import compare
from recognitions import recognition
from streaming_quality import Quality

TEXT = ["你", "好", "吗"]
SPANS = np.array([0.0, 0.27, 0.8]), np.array([0.3, 0.5, 1.0])


def test_neighbours_share_30_ms_and_pauses_belong_to_nobody() -> None:
    found = Boundaries()
    compare([("你", 0.0, 0.285), ("吗", 0.81, 0.98)], TEXT, SPANS, found)
    assert len(found) == 2
    assert found.figures()["mean"] == pytest.approx(1e3 * (0.01 + 0.02) / 4)
    assert SPANS[0][1] == 0.27, "the known times are not changed"


def test_delays_of_right_tokens_in_utterances_with_the_right_count() -> None:
    right = recognition(
        [("你", 0, 0.3), ("号", 0.3, 0.5), ("吗", 0.8, 1)], spaces=False
    )
    short = recognition([("你", 0, 0.3)], spaces=False)
    quality = Quality([TEXT, TEXT], [SPANS, SPANS])
    late = quality.delays([right, short], [[0.5, 0.6, 1.4], [0.9]])
    # 0.5 − 0.3 and 1.4 − 1.0 s; percentiles lie between them.
    assert late == ["300", "390"]
    assert Quality([TEXT], [None]).delays([right], [[0.5, 0.6, 1.4]]) == ["–", "–"]


def test_cells_count_the_tokens() -> None:
    right = recognition(
        [("你", 0, 0.285), ("号", 0.3, 0.5), ("吗", 0.8, 1)], spaces=False
    )
    cells = Quality([TEXT], [SPANS]).cells([right])
    assert cells[:2] == [2, "0.0"]
    # Equal confidences say nothing.
    assert str(cells[-3]).startswith("0.500")
