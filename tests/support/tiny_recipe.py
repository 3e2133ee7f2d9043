"""A recipe small enough for a test to run it all: tones that spell short words."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
WORDS = ("ab", "ba", "a b", "b a", "abba", "ab a", "ba b", "bab")

# Curves of a training take ESPnet longer to draw than the training itself; the language
# model and packed_model.py have them.
ASR_CONFIG = """
frontend: default
frontend_conf: {n_fft: 256, hop_length: 80, n_mels: 8}
encoder: transformer
encoder_conf: {output_size: 8, attention_heads: 2, linear_units: 8, num_blocks: 1}
decoder: transformer
decoder_conf: {attention_heads: 2, linear_units: 8, num_blocks: 1}
model_conf: {ctc_weight: 0.5}
optim: adam
batch_type: unsorted
batch_size: 4
max_epoch: 1
num_workers: 0
keep_nbest_models: 1
num_att_plot: 0
use_matplotlib: false
use_tensorboard: false
"""

CIF_CONFIG = """
frontend: default
frontend_conf: {n_fft: 256, hop_length: 80, n_mels: 8}
encoder: transformer
encoder_conf: {output_size: 8, attention_heads: 2, linear_units: 8, num_blocks: 1}
decoder: cif
decoder_conf: {attention_heads: 2, linear_units: 8, num_blocks: 1}
model: cif
model_conf: {ctc_weight: 0.5}
optim: adam
batch_type: unsorted
batch_size: 4
max_epoch: 1
num_workers: 0
keep_nbest_models: 1
num_att_plot: 0
use_matplotlib: false
use_tensorboard: false
"""

TRANSDUCER_CONFIG = """
frontend: default
frontend_conf: {n_fft: 256, hop_length: 80, n_mels: 8}
encoder: transformer
encoder_conf: {output_size: 8, attention_heads: 2, linear_units: 8, num_blocks: 1}
decoder: transducer
decoder_conf: {hidden_size: 8}
joint_net_conf: {joint_space_size: 8}
model: transducer
model_conf: {ctc_weight: 0.3}
optim: adam
batch_type: unsorted
batch_size: 4
max_epoch: 1
num_workers: 0
keep_nbest_models: 1
num_att_plot: 0
use_matplotlib: false
use_tensorboard: false
"""

LM_CONFIG = """
lm: seq_rnn
lm_conf: {unit: 8, nlayers: 1}
optim: adam
batch_type: unsorted
batch_size: 4
max_epoch: 1
num_workers: 0
keep_nbest_models: 1
num_att_plot: 0
use_tensorboard: false
"""

DECODE_CONFIG = "beam_size: 2\nctc_weight: 0.3\nlm_weight: 0.1\nmaxlenratio: -5\n"

DATA_SH = """#!/usr/bin/env bash
set -e
mkdir -p data
cp -r source/. data/
printf '%s\\n' source sound '$CORPUS' > data/.inputs
"""


def tone(text: str, seconds: float, seed: int) -> np.ndarray:
    """One pitch per letter, with a little noise: ``(samples,)`` float64."""
    rng = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    wave = 0.01 * rng.standard_normal(samples)
    step = samples // len(text)
    for index, letter in enumerate(text):
        part = np.arange(step) / RATE
        pitch = {"a": 300.0, "b": 700.0, " ": 0.0}[letter]
        wave[index * step : (index + 1) * step] += 0.3 * np.sin(
            2 * np.pi * pitch * part
        )
    return wave


def write_set(folder: Path, name: str, count: int, rate: int = RATE) -> None:
    """Write ``source/NAME`` of ``count`` utterances and their sound files."""
    audio = folder / "sound" / name
    target = folder / "source" / name
    audio.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
    for index in range(count):
        words = WORDS[index % len(WORDS)]
        utterance = f"spk{index % 2}-{name}{index}"
        path = audio / f"{utterance}.wav"
        soundfile.write(path, tone(words, 0.8 + 0.05 * index, index), rate)
        rows["wav.scp"].append(f"{utterance} {path}")
        rows["text"].append(f"{utterance} {words}")
        rows["utt2spk"].append(f"{utterance} spk{index % 2}")
    speakers: dict[str, list[str]] = {}
    for line in sorted(rows["utt2spk"]):
        utterance, speaker = line.split()
        speakers.setdefault(speaker, []).append(utterance)
    rows["spk2utt"] = [f"{name} {' '.join(all_)}" for name, all_ in speakers.items()]
    for file, lines in rows.items():
        (target / file).write_text("".join(f"{line}\n" for line in sorted(lines)))


def make(folder: Path) -> Path:
    """Write a complete recipe in ``folder``."""
    for name, count in (("train", 8), ("valid", 4), ("test", 3)):
        write_set(folder, name, count)
    (folder / "conf").mkdir()
    (folder / "local").mkdir()
    (folder / "conf" / "asr.yaml").write_text(ASR_CONFIG)
    (folder / "conf" / "cif.yaml").write_text(CIF_CONFIG)
    (folder / "conf" / "lm.yaml").write_text(LM_CONFIG)
    (folder / "conf" / "decode.yaml").write_text(DECODE_CONFIG)
    (folder / "local" / "data.sh").write_text(DATA_SH)
    return folder


def options(**changed: str) -> list[str]:
    """The command line of the tiny recipe; keywords change or add options."""
    values = {
        "train_set": "train",
        "valid_set": "valid",
        "test_sets": "test",
        "fs": "8k",
        "ngpu": "0",
        "nj": "2",
        "inference_nj": "2",
        "token_type": "char",
        "use_lm": "false",
        "asr_config": "conf/asr.yaml",
        "lm_config": "conf/lm.yaml",
        "inference_config": "conf/decode.yaml",
        **changed,
    }
    return [word for name, value in values.items() for word in (f"--{name}", value)]
