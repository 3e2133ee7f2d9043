"""English for miniature corpora: FOTAQ's lines if the game is here, else tones.

The recordings are those of egs2/fotaq (see its README for the licence): they are taken
from the ``queen.1c`` which that recipe has fetched, or from the one that
``MINIATURE_FOTAQ`` names. Nothing is fetched for a test.
"""

import importlib
import io
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import soundfile

from miniature.speech import RATE, Clip

_FOTAQ = Path(__file__).parents[3] / "egs2" / "fotaq" / "asr_hkd"
SENTENCES = (
    "I DON'T KNOW WHAT YOU MEAN",
    "THE BOYS' TOYS WERE LOST AT SEA",
    "IT WAS FOUR O'CLOCK IN THE MORNING",
    "HE WALKED ALONG THE RIVER AND SAID NOTHING",
    "TIS A FINE DAY SAID THE OLD WOMAN",
    "SHE OPENED THE DOOR OF THE HOUSE",
    "THERE WAS NO ANSWER FROM THE OTHER SIDE",
    "WE SHALL MEET AGAIN BEFORE THE WINTER",
    "THE KING'S HORSES STOOD IN THE RAIN",
    "A LITTLE BOAT CAME ROUND THE ISLAND",
    "NOBODY HAD SEEN HIM SINCE THE SPRING",
    "I'LL TELL YOU THE STORY ANOTHER TIME",
)


def tones() -> list[Clip]:
    """Artificial clips, no speech: one pitch for each letter of a sentence."""
    rng = np.random.default_rng(3)
    step = np.arange(RATE // 12) / RATE
    clips = []
    for sentence in SENTENCES:
        pitches = [0.0 if c == " " else 200.0 + 60.0 * (ord(c) % 32) for c in sentence]
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * p * step) for p in pitches])
        clips.append(Clip(sentence, samples + 0.01 * rng.standard_normal(len(samples))))
    return clips


def spoken(archive: Path, count: int, shortest: float = 1.5) -> list[Clip]:
    """The first ``count`` lines of FOTAQ that last ``shortest`` seconds, at 16 kHz."""
    import soxr

    if str(_FOTAQ / "local") not in sys.path:
        sys.path.insert(0, str(_FOTAQ / "local"))
    archives = importlib.import_module("fotaq_archive")
    corpus = importlib.import_module("fotaq_corpus")
    lines = importlib.import_module("fotaq_text").spoken_lines
    game = archives.Archive(archive.read_bytes(), str(archive))
    excluded = corpus.read_excluded(_FOTAQ / "local" / "excluded.tsv")
    clips: list[Clip] = []
    for name, line in sorted(lines(game).items()):
        words = corpus.normalise(line.text)
        if name in excluded or not words or f"{name}.SB" not in game.members:
            continue
        samples, rate = soundfile.read(io.BytesIO(game.read(f"{name}.SB")))
        if len(samples) / rate < shortest:
            continue
        clips.append(Clip(words, np.clip(soxr.resample(samples, rate, RATE), -1, 1)))
        if len(clips) == count:
            break
    return clips


def english(count: int) -> list[Clip]:
    """``count`` clips of real speech if the game is here, else announced tones."""
    given = os.environ.get("MINIATURE_FOTAQ", "")
    archive = Path(given) if given else _FOTAQ / "downloads" / "queen.1c"
    try:
        return spoken(archive, count)
    except (OSError, ImportError) as error:
        warnings.warn(
            f"no recorded English ({error}): the miniature corpus is ARTIFICIAL TONES",
            stacklevel=2,
        )
        return tones()
