"""The plan of one corpus (YAML): systems, seeds, variants and decodings.

Example; ``options`` are always words of a command line, given as a list or as one
string that is split like in the shell. ``{seed}`` in them is the seed of the run::

    corpus: fotaq
    title: "FOTAQ: English, 3.9 hours"
    recipe: egs2/fotaq/asr_hkd
    baseline: cif                # all others are compared with it
    controls: {hkd: random}      # optional; further systems to compare a system with
    words: true                  # false: no word error rate, for Mandarin
    readings: data/{set}/pinyin  # optional; the syllable of each character
    frequencies: train_2000      # optional; where words are counted, instead of train
    seeds: [1, 2, 3]
    epochs: 20
    subset: 2000                 # optional; training utterances of every system
    page: RESULTS.md             # optional; the page in the folder of the recipe
    options: []                  # of every run
    statistics: []               # optional; more options of stage 10
    systems:
      cif: {label: CIF, options: [--system, cif]}
      att: {label: CTC/attention, options: [], outside: true}
      random: {label: random teacher, options: [], before: python3 make_teacher.py}
      more: {label: its own training set, options: [], stage: 2}  # first stage; or 11
    variants:                    # side experiments on a system
      neg100: {label: 100 negatives, system: hkd, options: []}
      small: {label: 500 utterances, system: cif, epochs: 90, subset: 500}
      full: {label: all utterances, system: cif, subset: 0}
      small-hkd:
        {label: 500 utterances, system: hkd, epochs: 90, subset: 500, against: small}
    decodes:
      nolm: {label: without LM, options: []}
      lm: {label: with LM, options: []}
      length:                    # {exp}: folder of the trained model
        label: number of tokens chosen
        before: espnet-cif fit-length --model {exp} --data dump/raw/dev
        options: --inference_args "--asr_train_config {exp}/config_length.yaml"
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espnet_cif_hkd.errors import UserError

TRAIN_SET = "train"  # in all recipes of this repository
TRAINING = 11  # its stage
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_KEYS = {
    *("corpus", "title", "recipe", "baseline", "controls", "words", "readings"),
    *("frequencies", "seeds", "epochs", "subset", "page", "options"),
    *("statistics", "systems", "variants", "decodes"),
}


@dataclass(frozen=True)
class System:
    """One row of the tables.

    Attributes:
        name: in file names; lower-case letters, digits and hyphens.
        label: in tables.
        options: words of the command line in addition to those of every run.
        outside: an external reference, not part of the question.
        before: a command to run first, in the folder of the recipe.
        stage: first stage of its runs; an earlier one than that of the training if its
            training set is its own.
    """

    name: str
    label: str
    options: tuple[str, ...]
    outside: bool
    before: tuple[str, ...]
    stage: int


@dataclass(frozen=True)
class Variant:
    """A side experiment: ``system`` with other ``options``.

    Attributes:
        name, label: as of a system.
        system: name of the system that it varies.
        options: words of the command line in addition to those of the system.
        epochs: of its training.
        subset: number of utterances for training, those of the recipe's
            ``local/data.sh --subset``; 0: all.
        against: name of the variant or system to compare with.
    """

    name: str
    label: str
    system: str
    options: tuple[str, ...]
    epochs: int
    subset: int
    against: str


@dataclass(frozen=True)
class Decode:
    """One way of decoding a trained system.

    Attributes:
        name, label: as of a system.
        options: words of the command line.
        before: a command to run first, in the folder of the recipe.
    """

    name: str
    label: str
    options: tuple[str, ...]
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """The plan of one corpus.

    Attributes:
        path: the YAML file.
        corpus, title: its name in file names, and in words.
        recipe: folder of the recipe, relative to the repository.
        baseline: name of the system to compare all others with.
        controls: pairs of a system and another one, without the supposed cause of its
            gain.
        words: whether word error rates are reported too.
        readings: a file of the recipe, ``{set}`` in its place, or None.
        frequencies: the set in whose text the occurrences of a word are counted.
        seeds: at least one, each once.
        epochs: of every training, except variants with their own number.
        subset: number of training utterances of every system, and of variants without
            their own; 0: all.
        page: file name of the results in the folder of the recipe.
        options: words of every command line.
        statistics: further words of stage 10, whose files all cells share: with
            ``--feats_normalize global_mvn`` some cells may use sums of features.
        systems, variants, decodes: by name, in the order of the file.
    """

    path: Path
    corpus: str
    title: str
    recipe: str
    baseline: str
    controls: tuple[tuple[str, str], ...]
    words: bool
    readings: str | None
    frequencies: str
    seeds: tuple[int, ...]
    epochs: int
    subset: int
    page: str
    options: tuple[str, ...]
    statistics: tuple[str, ...]
    systems: Mapping[str, System]
    variants: Mapping[str, Variant]
    decodes: Mapping[str, Decode]

    def epochs_of(self, variant: str | None) -> int:
        """Epochs of a variant; of a system if it is None."""
        return self.variants[variant].epochs if variant else self.epochs

    def subset_of(self, variant: str | None) -> int:
        """Number of training utterances of a variant, or of a system; 0: all."""
        return self.variants[variant].subset if variant else self.subset

    @property
    def results(self) -> Path:
        """Folder of the results: ``cells/``, the table and ``tuning.json``."""
        return self.path.parent / "results" / self.corpus


class _Reader:
    """Checked values of a mapping; errors name the file and the key."""

    def __init__(self, path: Path, where: str, data: object) -> None:
        self.path, self.where = path, where
        if not isinstance(data, dict):
            raise UserError(f"{path}: {where or 'the file'} must be a mapping")
        self.data: dict[Any, Any] = data

    def fail(self, key: str, wanted: str) -> UserError:
        name = f"{self.where}.{key}" if self.where else key
        return UserError(f"{self.path}: {name}: {wanted}")

    def only(self, known: set[str]) -> None:
        for key in self.data:
            if key not in known:
                raise self.fail(str(key), f"unknown; known are {sorted(known)}")

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, "give a text")
        return value.strip()

    def count(self, key: str, least: int = 1) -> int:
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(key, f"give a whole number from {least}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "give true or false")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if isinstance(value, str):
            try:
                return tuple(shlex.split(value))
            except ValueError as error:
                raise self.fail(key, f"not words of a command ({error})") from None
        if not isinstance(value, list) or not all(isinstance(w, str) for w in value):
            raise self.fail(key, "give a list of texts (quote numbers), or one text")
        return tuple(value)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A mapping of names to words, as pairs of a name and a word."""
        data = self.data.get(key) or {}
        if not isinstance(data, dict):
            raise self.fail(key, "must be a mapping of names")
        one = _Reader(self.path, key, data)
        return tuple((str(name), word) for name in data for word in one.words(name))

    def group(self, key: str, known: set[str]) -> "dict[str, _Reader]":
        """The mappings under ``key``, by name."""
        data = self.data.get(key) or {}
        if not isinstance(data, dict):
            raise self.fail(key, "must be a mapping of names")
        found = {}
        for name, value in data.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise self.fail(
                    f"{key}.{name}", "names are lower-case letters, digits and hyphens"
                )
            found[name] = _Reader(self.path, f"{key}.{name}", value)
            found[name].only(known)
        return found


def read_matrix(path: Path) -> Matrix:
    """Read and check a matrix.

    Raises:
        UserError: naming the file, the key and what it must be.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    top = _Reader(path, "", data)
    top.only(_KEYS)
    systems = {
        name: System(
            name=name,
            label=one.text("label"),
            options=one.words("options"),
            outside=one.flag("outside", False),
            before=one.words("before"),
            stage=one.count("stage") if "stage" in one.data else TRAINING,
        )
        for name, one in top.group(
            "systems", {"label", "options", "outside", "before", "stage"}
        ).items()
    }
    epochs = top.count("epochs")
    subset = top.count("subset") if "subset" in top.data else 0
    variants = {
        name: Variant(
            name=name,
            label=one.text("label"),
            system=one.text("system"),
            options=one.words("options"),
            epochs=one.count("epochs") if "epochs" in one.data else epochs,
            subset=one.count("subset", 0) if "subset" in one.data else subset,
            against=one.text("against" if "against" in one.data else "system"),
        )
        for name, one in top.group(
            "variants", {"label", "system", "options", "epochs", "subset", "against"}
        ).items()
    }
    decodes = {
        name: Decode(name, one.text("label"), one.words("options"), one.words("before"))
        for name, one in top.group("decodes", {"label", "options", "before"}).items()
    }
    baseline = top.text("baseline")
    if baseline not in systems:
        raise top.fail("baseline", f"{baseline} is none of {sorted(systems)}")
    controls = top.pairs("controls")
    for system in {name for pair in controls for name in pair} - set(systems):
        raise top.fail("controls", f"{system} is none of {sorted(systems)}")
    for name, variant in variants.items():
        if variant.system not in systems:
            known = sorted(systems)
            raise top.fail(
                f"variants.{name}.system", f"{variant.system} is none of {known}"
            )
        if name in systems:
            raise top.fail(f"variants.{name}", "a system has this name")
        if variant.against not in {**variants, **systems}:
            raise top.fail(
                f"variants.{name}.against",
                f"{variant.against} is none of {sorted({**variants, **systems})}",
            )
    if not decodes:
        raise top.fail("decodes", "name at least one way of decoding")
    return Matrix(
        path=path,
        corpus=top.text("corpus"),
        title=top.text("title"),
        recipe=top.text("recipe"),
        baseline=baseline,
        controls=controls,
        words=top.flag("words", True),
        readings=top.text("readings") if "readings" in top.data else None,
        frequencies=(
            top.text("frequencies") if "frequencies" in top.data else TRAIN_SET
        ),
        seeds=_seeds(top),
        epochs=epochs,
        subset=subset,
        page=top.text("page") if "page" in top.data else "RESULTS.md",
        options=top.words("options"),
        statistics=top.words("statistics"),
        systems=systems,
        variants=variants,
        decodes=decodes,
    )


def _seeds(top: _Reader) -> tuple[int, ...]:
    seeds = top.data.get("seeds")
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(isinstance(seed, int) and seed >= 0 for seed in seeds)
        or len(set(seeds)) != len(seeds)
    ):
        raise top.fail("seeds", "give a list of different whole numbers from 0")
    return tuple(seeds)
