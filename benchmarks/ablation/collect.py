"""Reads the results of a run from its experiment folder.

Everything that a report needs is in the files that the recipe's stages wrote, so a cell
can be collected again at any time. No text of the corpus is copied.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ablation.cells import FORMAT
from ablation.errors import by_frequency, by_position, by_sound
from ablation.matrix import TRAIN_SET
from ablation.utterances import UNITS, Row
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.recipe.stages.sclite import Alignment, align
from espnet_cif_hkd.recipe.training_log import epoch_phases, group_logs

_LINE_OF_TRN = re.compile(r"(.*)\t\((.+)\)")
_SYLLABLE = re.compile(r"[^\W\d_]+[1-5]")
_ELAPSED = re.compile(r"Total decoding time: ([\d.]+)")


def collect(
    folder: Path,
    recipe: Path,
    decodes: dict[str, str],
    sets: Iterable[str],
    unit: str,
    spoken: str | None = None,
    counted_in: str = TRAIN_SET,
) -> tuple[dict[str, Any], list[Row]]:
    """Read the results of one run.

    Args:
        folder: its experiment folder.
        recipe: the folder of the recipe, which holds ``dump``.
        decodes: folder of each way of decoding, by its name.
        sets: what was decoded.
        unit: ``word`` or ``char``: errors are counted by its frequency in training.
        spoken: path of the recipe's file with a reading of each character, with
            ``{set}`` for the name of the set; None if there is none.
        counted_in: the set whose text gives the frequencies. It is the same for all
            cells of a corpus, so that they have the same classes.

    Returns:
        The JSON value of the cell, and a row of each utterance.

    Raises:
        UserError: A file is missing, or has not one reading for each character.
    """
    config = _read(folder / "config.yaml")
    conf = yaml.safe_load(config)
    raw = recipe / "dump" / "raw"
    frequencies = training_counts(raw / counted_in / "text", unit)
    sounds = read_sounds(recipe, spoken, (TRAIN_SET, *sets)) if spoken else None
    found: dict[str, Any] = {
        "format": FORMAT,
        "versions": versions(),
        "hashes": {
            "train": data_hash(recipe / trained_on(conf), recipe),
            **{name: data_hash(unfiltered(raw, name), recipe) for name in sets},
            "teacher": teacher_hash(conf, recipe),
            "config": hashlib.sha256(config.encode()).hexdigest(),
        },
        "parameters": count_parameters(conf, recipe),
        "epochs": read_epochs(folder),
        "decodes": {},
    }
    rows: list[Row] = []
    for name, decoded in decodes.items():
        places = {one: unfiltered(folder / decoded, one) for one in sets}
        scored = {one: read_scores(place) for one, place in places.items()}
        aligned = {one: align_all(scored[one]) for one in sets}
        found["decodes"][name] = {
            "seconds": sum(map(decoding_seconds, places.values())),
            "by_position": {
                one: by_position(aligned[one]["char"].values()) for one in sets
            },
        }
        for one in sets:
            counted = counts(scored[one], aligned[one], frequencies, unit, sounds)
            rows += [{"set": one, "decode": name, **row} for row in counted]
    return found, rows


def unfiltered(folder: Path, name: str) -> Path:
    """The folder of a set with all its utterances.

    ESPnet filters a set that is used for validation and keeps the complete one, which
    it decodes, in ``org/name``.
    """
    complete = folder / "org" / name
    return complete if complete.is_dir() else folder / name


Scores = dict[str, dict[str, tuple[list[str], list[str]]]]


def read_scores(folder: Path) -> Scores:
    """Reference and hypothesis by utterance, in characters, words and tokens.

    Args:
        folder: of a decoded set, after stage 13.

    Raises:
        UserError: a file is missing or damaged.
    """
    scores: Scores = {}
    for unit, kind in (("char", "cer"), ("word", "wer"), ("token", "ter")):
        scored = folder / f"score_{kind}"
        if unit == "token" and not scored.is_dir():
            scores[unit] = scores["char"]
            continue
        refs, hyps = (_read_trn(scored / f"{side}.trn") for side in ("ref", "hyp"))
        if list(refs) != list(hyps):
            raise UserError(f"{scored}: ref.trn and hyp.trn list different utterances")
        scores[unit] = {utt: (refs[utt], hyps[utt]) for utt in refs}
    return scores


def _read_trn(path: Path) -> dict[str, list[str]]:
    table = {}
    for line in _read(path).splitlines():
        match = _LINE_OF_TRN.fullmatch(line)
        if match is None:
            raise UserError(f"{path}: {line!r} does not end with (speaker-utterance)")
        table[match[2]] = match[1].split()
    return table


Aligned = dict[str, dict[str, Alignment]]


def align_all(scores: Scores) -> Aligned:
    """Characters and words of each utterance, aligned like sclite."""
    return {
        unit: {utt: align(*pair) for utt, pair in scores[unit].items()}
        for unit in ("char", "word")
    }


def counts(
    scores: Scores,
    aligned: Aligned,
    frequencies: Counter[str],
    unit: str,
    sounds: "Sounds | None",
) -> Iterator[dict[str, str | int]]:
    """A row of each utterance, with the columns of ``utterances.py``.

    Raises:
        UserError: a reference has not one reading for each character.
    """
    for utt, (ref, hyp) in scores["token"].items():
        row: dict[str, str | int] = {"utterance": utt}
        row |= {"ref_tokens": len(ref), "hyp_tokens": len(hyp)}
        for name in UNITS:
            one = aligned[name][utt]
            row |= {f"{name}_ref": one.n_ref, f"{name}_ins": one.inserted}
            row |= {f"{name}_del": one.deleted, f"{name}_sub": one.substituted}
        for name, (tokens, wrong) in by_frequency(
            [aligned[unit][utt]], frequencies
        ).items():
            row |= {f"seen_{name}_ref": tokens, f"seen_{name}_wrong": wrong}
        if sounds is not None:
            spoken = sounds.spoken.get(utt, [])
            if len(spoken) != row["char_ref"]:
                raise UserError(
                    f"{utt}: {len(spoken)} readings of {row['char_ref']} characters; "
                    "run the recipe from stage 1 again"
                )
            errors = by_sound(aligned["char"][utt], spoken, sounds.readings)
            row |= {f"sound_{name}": number for name, number in errors.items()}
        yield row


@dataclass(frozen=True)
class Sounds:
    """How sentences are pronounced.

    Attributes:
        spoken: by speaker-utterance, the reading of each character.
        readings: by character, all its readings in the corpus.
    """

    spoken: Mapping[str, list[str]]
    readings: Mapping[str, set[str]]


def read_sounds(recipe: Path, pattern: str, sets: Iterable[str]) -> Sounds:
    """The readings of all sets; words that are not like ``hao3`` are punctuation.

    Raises:
        UserError: a file is missing, or has not one reading for each character.
    """
    spoken: dict[str, list[str]] = {}
    readings: dict[str, set[str]] = {}
    for name in sets:
        path = recipe / pattern.format(set=name)
        data = unfiltered(recipe / "dump/raw", name)
        texts, speakers = read_table(data / "text"), read_table(data / "utt2spk")
        table = read_table(path, "run stage 1 again")
        for utt, sentence in texts.items():
            syllables = _SYLLABLE.findall(table.get(utt, ""))
            characters = "".join(sentence.split())
            if len(characters) != len(syllables):
                raise UserError(
                    f"{path}: {utt} has {len(syllables)} readings of "
                    f"{len(characters)} characters; run stage 1 again"
                )
            spoken[f"{speakers[utt]}-{utt}"] = syllables  # the name in trn files
            for character, syllable in zip(characters, syllables):
                readings.setdefault(character, set()).add(syllable)
    return Sounds(spoken, readings)


def training_counts(text: Path, unit: str) -> Counter[str]:
    """Occurrences of each word or character in the training text."""
    units: Counter[str] = Counter()
    for sentence in read_table(text, "run stages 1 to 4 first").values():
        words = sentence.split()
        units.update(words if unit == "word" else "".join(words))
    return units


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The log of each epoch; the last one if an epoch was trained twice."""
    epochs: dict[int, dict[str, Any]] = {}
    for logs in group_logs(folder.glob("train*.log")).values():
        for log in logs:
            for number, phases in epoch_phases(_read(log)):
                train = phases["train"]
                epochs[number] = {
                    "epoch": number,
                    "updates": round(train["total_count"]),
                    "seconds": round(sum(p["seconds"] for p in phases.values()), 3),
                    **{name: _losses(phase) for name, phase in phases.items()},
                }
    if not epochs:
        raise UserError(f"{folder}: no finished epoch in train.log")
    return [epochs[number] for number in sorted(epochs)]


def _losses(phase: dict[str, float]) -> dict[str, float]:
    kept = ("loss", "nll", "acc", "cer", "wer", "length_error", "negatives")
    return {name: value for name, value in phase.items() if name.startswith(kept)}


def decoding_seconds(folder: Path) -> float:
    """Seconds of the search, without loading the model."""
    match = _ELAPSED.search(_read(folder / "logdir" / "calculate_rtf.log"))
    return float(match[1]) if match else 0.0


_in_recipe = threading.Lock()  # the working folder is that of all threads


def count_parameters(conf: dict[str, Any], recipe: Path) -> dict[str, int]:
    """Number of parameters in inference and in training.

    Args:
        conf: config.yaml of the training.
        recipe: folder of the recipe, to which paths in ``conf`` are relative.
    """
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd

    espnet_cif_hkd.register()
    with _in_recipe:
        before = Path.cwd()
        os.chdir(recipe)
        try:
            model = ASRTask.build_model(argparse.Namespace(**conf))
        finally:
            os.chdir(before)
    sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
    heads = ("criterion.", "criteria.")
    needed = {name: n for name, n in sizes.items() if not name.startswith(heads)}
    return {"inference": sum(needed.values()), "training": sum(sizes.values())}


def trained_on(conf: dict[str, Any]) -> Path:
    """Folder of the training data, relative to the recipe's."""
    file, _, _ = conf["train_data_path_and_name_and_type"][0]
    return Path(file).parent


@functools.cache
def data_hash(folder: Path, recipe: Path) -> str:
    """Hash of all transcripts and samples of a set, for any audio format."""
    import soundfile

    digest = hashlib.sha256()
    texts = read_table(folder / "text", "run stages 1 to 4 first")
    recordings = read_table(folder / "wav.scp", "run stages 1 to 4 first")
    for utt in sorted(texts):
        samples, rate = soundfile.read(recipe / recordings[utt], dtype="int16")
        digest.update(f"{utt} {texts[utt]} {rate} ".encode() + samples.tobytes())
    return digest.hexdigest()


@functools.cache
def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def teacher_hash(conf: dict[str, Any], recipe: Path) -> str | None:
    """Hash of the teacher's weights, if it is in a folder; relative to the recipe."""
    from espnet_cif_hkd.teachers.source import resolve_teacher

    name = ((conf.get("model_conf") or {}).get("criterion_conf") or {}).get("teacher")
    if not name or not conf["model_conf"].get("criterion"):
        return None
    own = recipe / name
    folder = own if own.is_dir() else Path(resolve_teacher(name))
    files = (folder / one for one in ("model.safetensors", "pytorch_model.bin"))
    return next((_file_hash(file) for file in files if file.is_file()), None)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of this package, ESPnet, torch and Python."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "espnet_cif_hkd": commit.stdout.strip() or "not in git",
        "espnet": importlib.metadata.version("espnet"),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
