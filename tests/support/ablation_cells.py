"""Shared by the tests of the ablation: its modules on the path, simulated cells."""

import math
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
for _folder in ("benchmarks", "tools"):
    if str(ROOT / _folder) not in sys.path:
        sys.path.append(str(ROOT / _folder))

from ablation import cells  # noqa: E402
from ablation.errors import FREQUENCIES, TENTHS  # noqa: E402

SETS = {"dev": 120, "test": 100}
QUALITY = {"cif": 0.34, "acd": 0.335, "lrd": 0.342, "hkd": 0.31, "att": 0.36}

MATRIX = """
corpus: fotaq
title: "FOTAQ, simulated"
recipe: egs2/fotaq/asr_hkd
baseline: cif
words: {words}
seeds: {seeds}
epochs: 12
systems:
  cif: {{label: CIF, options: --system cif}}
  acd: {{label: CIF + ACD, options: --system acd}}
  lrd: {{label: CIF + LRD, options: --system lrd}}
  hkd: {{label: CIF + HKD, options: --system hkd}}
  att: {{label: CTC/attention, options: --system att, outside: true}}
variants:
  neg100: {{label: 100 negatives, system: hkd, options: []}}
decodes:
  nolm: {{label: without LM, options: --use_lm false}}
  lm: {{label: with LM, options: --use_lm true}}
"""


def write_matrix(folder, seeds=(1, 2, 3), words=True):
    """A matrix file in a folder of its own; returns its path."""
    path = folder / "fotaq.yaml"
    text = MATRIX.format(seeds=list(seeds), words=str(words).lower())
    path.write_text(text, encoding="utf-8")
    return path


def _decoded_set(name, quality, seed):
    """Rows of the table, and errors by position."""
    size = SETS[name]
    lengths = np.random.default_rng(len(name)).integers(4, 60, size)
    generator = np.random.default_rng([seed, int(1e6 * quality), size])
    # Some recordings are hard for all systems, which makes a paired comparison sharp.
    hard = np.random.default_rng(size).normal(1, 0.35, size).clip(0.1, 2)
    given = np.random.default_rng(size + 1)  # references are the same for all systems
    shares = [0.06, 0.05, 0.1, 0.2, 0.3, 0.29]
    badness = [2.6, 1.9, 1.5, 1.1, 0.8, 0.6]
    rows = []
    for i, length in enumerate(lengths.tolist()):
        wrong = generator.binomial(length, min(0.9, quality * hard[i]))
        inserted, deleted, substituted = generator.multinomial(wrong, [0.1, 0.2, 0.7])
        words = max(1, length // 5)
        bad = generator.binomial(words, min(0.95, 1.8 * quality * hard[i]))
        row = {"set": name, "utterance": f"{name}{i:04d}"}
        row |= {"char_ref": length, "char_ins": int(inserted)}
        row |= {"char_del": int(deleted), "char_sub": int(substituted)}
        row |= {"word_ref": words, "word_ins": 0, "word_del": 0, "word_sub": int(bad)}
        row |= {"ref_tokens": length}
        row |= {"hyp_tokens": length + int(inserted) - int(deleted)}
        counted = given.multinomial(words, shares).tolist()
        for key, n, much in zip(FREQUENCIES.values(), counted, badness):
            missed = generator.binomial(n, min(0.95, 1.6 * quality * much))
            row |= {f"seen_{key}_ref": n, f"seen_{key}_wrong": int(missed)}
        rows.append(row)
    tenths = given.multinomial(int(lengths.sum()), np.full(10, 0.1)).tolist()
    by_position = {
        key: [n, int(generator.binomial(n, min(1, quality * much)))]
        for key, n, much in zip(TENTHS, tenths, np.linspace(0.8, 1.2, 10))
    }
    return rows, by_position


def _epochs(system, quality, generator, number):
    epochs = []
    for epoch in range(1, number + 1):
        noise = 1 + 0.02 * generator.standard_normal()
        error = (quality + 0.5 * math.exp(-epoch / 4)) * noise
        train = {"loss": 4 * error, "loss_ctc": 6 * error}
        valid = {"loss": 4.5 * error, "acc": 1 - error, "cer": error}
        valid["cer_ctc"] = 1.15 * error
        if system == "att":
            valid["loss_att"] = 3 * error
        else:
            train |= {"nll": 2.5 * error, "loss_att": 3 * error, "loss_quantity": 0.06}
            train["loss_quantity"] = 0.02 + 0.1 * error
            valid |= {"cer_free": 1.1 * error, "length_error": 0.3 * error}
            valid |= {"nll": 2.7 * error, "loss_quantity": 0.03 + 0.1 * error}
        if system in ("acd", "hkd"):
            train |= {"loss_acd": 5 * error, "acc_acd": 1 - 1.5 * error}
            valid["acc_acd"] = max(0.0, 0.9 - 1.2 * error)
        if system in ("lrd", "hkd"):
            train["loss_lrd"] = valid["loss_lrd"] = 30 * error
        epochs.append(
            {
                "epoch": epoch,
                "updates": 388 * epoch,
                "seconds": 180.5 + seed_noise(generator),
                "train": train,
                "valid": valid,
            }
        )
    return epochs


def seed_noise(generator):
    return round(float(generator.normal(0, 2)), 1)


def cell(system, seed, variant=None, decodes=("nolm", "lm"), spread=0.008, epochs=12):
    """One simulated cell with its ``rows``, as ``collect.py`` would find it."""
    generator = np.random.default_rng([seed, sum(map(ord, system + (variant or "")))])
    quality = QUALITY[system] + spread * float(generator.standard_normal())
    found = {
        "format": 2,
        "corpus": "fotaq",
        "system": system,
        "seed": seed,
        "commands": [f"./run.sh --system {system} --asr_args '--seed {seed}'"],
        "versions": {"espnet_cif_hkd": "abc1234", "espnet": "202511"},
        "hashes": {"train": "ab" * 32, "dev": "cd" * 32, "test": "ef" * 32}
        | {"teacher": "01" * 32 if system in ("acd", "lrd", "hkd") else None}
        | {"config": f"{seed:02d}" * 32},
        "parameters": {"inference": 4_070_000, "training": 4_170_000},
        "epochs": _epochs(system, quality, generator, epochs),
        "decodes": {},
        "rows": [],
    }
    if variant:
        found["variant"] = variant
    for name in decodes:
        much = quality * (0.88 if name == "lm" else 1)
        found["decodes"][name] = {"seconds": 140.25, "by_position": {}}
        for one in SETS:
            rows, positions = _decoded_set(one, much, seed)
            found["rows"] += [{**row, "decode": name} for row in rows]
            found["decodes"][name]["by_position"][one] = positions
    return found


def write_cell(matrix_path, found):
    """Put a cell where the report looks for it; returns its path."""
    middle = f"_{found['variant']}" if found.get("variant") else ""
    name = f"{found['system']}{middle}_seed{found['seed']}.json"
    path = matrix_path.parent / "results/fotaq/cells" / name
    rest = {key: value for key, value in found.items() if key != "rows"}
    cells.write_cell(path, rest, found["rows"])
    return path


def write_all(folder, seeds=(1, 2, 3), **kinds):
    """A complete matrix with all its cells; returns the path of the matrix."""
    path = write_matrix(folder, seeds)
    for system in QUALITY:
        for seed in seeds:
            write_cell(path, cell(system, seed, **kinds))
    write_cell(path, cell("hkd", seeds[0], "neg100", **kinds))
    return path
