"""Each corpus' recipe on a miniature, with options that make the model small.

What a case returns are options of ``run.sh``, the same for both engines; the recipe
itself stays as it is laid out. :func:`run_stages` runs it with either.
"""

import hashlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aishell_fixture
import fotaq_fixture
import numpy as np
import soundfile
from miniature.aishell import write_aishell
from miniature.english import SENTENCES, english
from miniature.librispeech import COUNTS, write_librispeech
from miniature.speech import mandarin
from tiny_bert import HIDDEN, build_tiny_bert
from tiny_whisper import build_tiny_whisper

from espnet_cif_hkd.recipe import layout

_SMALLER = (
    "--encoder_conf output_size=16 --encoder_conf attention_heads=2 "
    "--encoder_conf linear_units=16 --encoder_conf num_blocks=2 "
    "--decoder_conf attention_heads=2 --decoder_conf linear_units=16 "
    "--decoder_conf num_blocks=1 --max_epoch 2 --num_workers 0 --num_att_plot 0"
)
_POOLED = (
    "--encoder_conf pooling_layers=[1] --encoder_conf input_channels=4 "
    "--optim_conf lr=0.005 --batch_bins 100000 --max_epoch 6"
)
_TRISTAGE = f"{_POOLED} --scheduler_conf max_steps=60"
_SMALLER_ENCODER = (
    "--encoder_conf output_size=16 --encoder_conf attention_heads=2 "
    "--encoder_conf linear_units=16 --encoder_conf num_blocks=2 "
    "--max_epoch 2 --num_workers 0"
)
_SMALLER_LM = (
    "--lm_conf layer=1 --lm_conf att_unit=8 --lm_conf unit=8 --lm_conf embed_unit=8 "
    "--lm_conf head=2 --max_epoch 1 --num_workers 0"
)


def _options(folder: Path, more_asr_args: str, **changed: str) -> list[str]:
    """One process for everything, one test set, a model that takes seconds."""
    teacher = build_tiny_bert(folder / "teacher")
    asr_args = (
        f"{_SMALLER} {more_asr_args} --model_conf criterion_conf.teacher={teacher} "
        f"--model_conf criterion_conf.teacher_dim={HIDDEN} "
        "--model_conf criterion_conf.teacher_store=data/teacher_store"
    )
    values = {
        "ngpu": "0",
        "nj": "1",
        "inference_nj": "1",
        "skip_packing": "false",
        "asr_tag": "tiny",
        "asr_args": asr_args,
        "inference_tag": "decoded",
        "inference_args": "--beam_size 2 --maxlenratio -6",
        **changed,
    }
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def _lines() -> list[str]:
    """Sentences of which the recipe takes 12 for training, 3 for dev, 3 for test."""
    corpus = fotaq_fixture.load("fotaq_corpus")
    wanted = {"train": 12, "dev": 3, "test": 3}
    lines: list[str] = []
    for left, right in itertools.product(SENTENCES, SENTENCES[::-1]):
        words = " ".join(left.split()[:3] + right.split()[-3:])
        sets = corpus.split([corpus.Utterance("", "", words, 0.0)])
        name = next(name for name, inside in sets.items() if inside)
        if wanted[name] > 0 and words not in lines:
            wanted[name] -= 1
            lines.append(words)
    assert not any(wanted.values())
    return lines


def fotaq(folder: Path) -> list[str]:
    layout.init(["fotaq", str(folder)])
    lines = _lines()
    members = {
        "C1.CUT": fotaq_fixture.cut_scene(["", *lines]),
        "QUEEN2.JAS": fotaq_fixture.remarks([], []),
    }
    for n in range(1, len(lines) + 1):
        members[f"C1___{n:02d}1.SB"] = fotaq_fixture.tone(3.0 + n / 50, 200.0 + n)
    archive = folder / "downloads" / "queen.1c"
    archive.parent.mkdir()
    archive.write_bytes(fotaq_fixture.pack(members))
    # The recipe takes no archive but the one whose size and hash it knows.
    known = folder / "local" / "fotaq_archive.py"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    text = re.sub(
        r"ARCHIVE_SIZE = \S+",
        f"ARCHIVE_SIZE = {archive.stat().st_size}",
        known.read_text(),
    )
    known.write_text(
        re.sub(r'ARCHIVE_SHA256 = "\w+"', f'ARCHIVE_SHA256 = "{digest}"', text)
    )
    # The recipe's layer is one that the tiny teacher does not have.
    return _options(folder, "--model_conf criterion_conf.layer=1", test_sets="test")


_NO_CURVES = "--use_matplotlib false --use_tensorboard false"  # slow to draw


def pretrain(folder: Path, curves: bool = True) -> list[str]:
    """FOTAQ's transducer; two speech teachers teach its encoder first.

    ESPnet's stage 14 packs the curves, and fails without them.
    """
    options = fotaq(folder)
    for seed, name in enumerate(("whisper_base", "whisper_tiny_en")):
        build_tiny_whisper(folder / "downloads" / name, seed)
    encoder = _SMALLER_ENCODER if curves else f"{_SMALLER_ENCODER} {_NO_CURVES}"
    asr_args = (
        f"{encoder} --decoder_conf hidden_size=16 "
        "--joint_net_conf joint_space_size=16 --num_att_plot 0"
    )
    return [
        *("--pretrain", "true", "--system", "transducer"),
        *(*options, "--asr_args", asr_args, "--pretrain_args", encoder),
    ]


def unlabelled(folder: Path) -> list[str]:
    """The same; the encoder also learns from recordings without transcripts."""
    options = pretrain(folder)
    speech = folder / "more"
    speech.mkdir()
    for n in range(2):
        wave = 0.2 * np.random.default_rng(n).standard_normal((1 + n) * 11025)
        soundfile.write(speech / f"{n}.flac", wave, 11025)
    return ["--unlabelled", "more", *options]


def whisper(folder: Path) -> list[str]:
    """FOTAQ's CIF with HKD on a frozen speech model, the system of the demo.

    The speech model is a folder, so the archive of stage 14 must contain its weights.
    """
    options = fotaq(folder)
    build_tiny_whisper(folder / "downloads" / "whisper_base")
    options[options.index("--asr_args") + 1] += (
        " --frontend_conf weights=value --frontend_conf teacher_dim=12"
    )
    return ["--system", "whisper_hkd", *options]


def hsk(folder: Path) -> list[str]:
    # It needs pytest, and the benchmark that takes its case from here does not.
    import hsk_fixture

    layout.init(["hsk", str(folder)])
    sentences = hsk_fixture.load("hsk_sentences")
    packages = hsk_fixture.load("hsk_packages")
    downloads = folder / "downloads"
    downloads.mkdir()
    rows = hsk_fixture.rows(300)
    wheel = hsk_fixture.wheel(downloads / packages.SENTENCES.file, rows)
    sets = sentences.split(sentences.read_sentences(wheel)[0])
    few = sentences.subset(sets, 12, 3).values()
    names = {sentence.name for part in few for sentence in part}
    hsk_fixture.wheel(wheel, [row for row in rows if row["id"] in names])
    made = hsk_fixture.deb(folder.with_name("made") / "voice.deb")
    made.replace(downloads / packages.VOICE.file)
    # The recipe takes no packages but those whose size and hash it knows.
    known = folder / "local" / "hsk_packages.py"
    text = known.read_text()
    for package in (packages.SENTENCES, packages.VOICE):
        content = (downloads / package.file).read_bytes()
        text = text.replace(f"{package.size:_}", f"{len(content)}")
        text = text.replace(package.sha256, hashlib.sha256(content).hexdigest())
    known.write_text(text)
    more = "--scheduler_conf warmup_steps=5 --model_conf criterion_conf.layer=1"
    return _options(folder, f"{_POOLED} {more}", test_sets="test")


def aishell(folder: Path) -> list[str]:
    """With a language model."""
    aishell_fixture.lay_out(folder)
    write_aishell(folder / "downloads", mandarin(16))
    options = _options(folder, _TRISTAGE, test_sets="test", lm_args=_SMALLER_LM)
    return ["--use_lm", "true", *options]


def librispeech(folder: Path) -> list[str]:
    layout.init(["librispeech", str(folder)])
    write_librispeech(folder / "downloads", english(sum(COUNTS.values())))
    options = _options(folder, _TRISTAGE, test_sets="test_clean", nbpe="40")
    return ["--incomplete", "true", *options]


def wordpiece(folder: Path) -> list[str]:
    """LibriSpeech again, with the teacher's WordPieces as units."""
    options = librispeech(folder)
    # Stage 1 makes the units of the teacher that the configuration names.
    conf = folder / "conf" / "train_asr_cif_hkd_wordpiece.yaml"
    named = re.sub(r"teacher: \S+", f"teacher: {folder / 'teacher'}", conf.read_text())
    conf.write_text(re.sub(r"teacher_revision: \S+", "teacher_revision: null", named))
    return ["--units", "wordpiece", *options]


_LEVELS = "criteria.lm.levels"
_SMALL_LEVEL_LM = (
    "--lm_conf layer=1 --lm_conf att_unit=8 --lm_conf unit=8 --lm_conf embed_unit=8 "
    "--lm_conf head=2 --lm_conf dropout_rate=0 --batch_bins 20 --max_epoch 5 "
    "--optim_conf lr=0.03 --scheduler_conf warmup_steps=5 --num_workers 0 "
    f"{_NO_CURVES}"
)


def with_levels(
    case: Callable[[Path], list[str]], folder: Path, *more: str, curves: bool = False
) -> list[str]:
    """A recipe's system with soft labels, both levels on layers of the small encoder.

    Args:
        case: lays out the recipe.
        folder: where to put it.
        more: further options of ``model_conf``.
        curves: whether the training draws them.
    """
    options = case(folder)
    asr_args = options.index("--asr_args") + 1
    words = options[asr_args].split()
    pairs = [words[n : n + 2] for n in range(0, len(words), 2)]
    kept = [pair for pair in pairs if pair[0] != "--model_conf"]
    levels = (f"{_LEVELS}.phone.tap=layer:1", *more)
    kept += [["--model_conf", word] for word in levels]
    if not curves:
        kept.append([_NO_CURVES])
    options[asr_args] = " ".join(" ".join(pair) for pair in kept)
    return ["--system", "soft", *options, "--level_lm_args", _SMALL_LEVEL_LM]


def soft(folder: Path, curves: bool = True) -> list[str]:
    """FOTAQ with soft labels of three language models, and label interpolation.

    ESPnet's stage 14 packs the curves, and fails without them.
    """
    more = (f"{_LEVELS}.output.interpolation=0.2", f"{_LEVELS}.word.weight=0.3")
    return with_levels(fotaq, folder, *more, curves=curves)


def hsk_soft(folder: Path) -> list[str]:
    """HSK with soft labels of initials and finals, and of characters."""
    return with_levels(hsk, folder, curves=True)


CASES: dict[str, Callable[[Path], list[str]]] = {
    case.__name__: case
    for case in (
        *(fotaq, pretrain, unlabelled, whisper, soft),
        *(hsk, hsk_soft, aishell, librispeech, wordpiece),
    )
}


def run_stages(
    folder: Path,
    options: list[str],
    checkout: bool,
    first: int,
    last: int,
    python: str = sys.executable,
) -> float:
    """Seconds of stages ``first`` to ``last``; what they printed is in ``folder``.log.

    With ``checkout`` they are those of the ESPnet checkout in ``ESPNET_ROOT``.
    ``python`` is the interpreter that ``run.sh`` calls.
    """
    # Corpora that the environment names are not the miniature.
    ours = {"ESPNET_ROOT", "AISHELL", "LIBRISPEECH"}
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    environment["PYTHON"] = python
    if checkout:
        environment["ESPNET_ROOT"] = os.environ["ESPNET_ROOT"]
    started = time.monotonic()
    words = [*options, "--stage", str(first), "--stop_stage", str(last)]
    done = subprocess.run(
        ["bash", "run.sh", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    with folder.with_suffix(".log").open("a") as log:
        log.write(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:]
    return time.monotonic() - started
