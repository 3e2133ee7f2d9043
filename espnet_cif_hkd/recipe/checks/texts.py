"""Checks of training texts with the tokenizer of the run: lengths, unknown tokens."""

import argparse
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from espnet_cif_hkd.encoder.frames import frames_needed
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import first_few, read_table
from espnet_cif_hkd.recipe import dropped
from espnet_cif_hkd.recipe.checks.lengths import frame_counter
from espnet_cif_hkd.recipe.context import Run

# From this share of unknown tokens on, the report is a warning.
_MANY_UNKNOWN = 0.001


class _Tokenizer:
    """Converts text to token ids as the training does; counts unknown tokens."""

    def __init__(self, preprocess: Any) -> None:
        self._preprocess = preprocess
        converter = getattr(preprocess, "token_id_converter", None)
        plm = getattr(converter, "tokenizer", None)
        self._unknown = getattr(converter, "unk_id", getattr(plm, "unk_token_id", None))
        self.total = 0
        self.unknown: Counter[str] = Counter()

    def _ids(self, words: str) -> list[int]:
        ids: list[int] = self._preprocess("", {"text": words})["text"].tolist()
        return ids

    def __call__(self, words: str) -> list[int]:
        ids = self._ids(words)
        self.total += len(ids)
        if self._unknown in ids:
            self.unknown.update(self._names(words, ids))
        return ids

    def _names(self, words: str, ids: list[int]) -> list[str]:
        """Return the text of unknown tokens, or the words that contain them."""
        preprocess, unknown = self._preprocess, self._unknown
        tokens = preprocess.tokenizer.text2tokens(preprocess.text_cleaner(words))
        (name,) = preprocess.token_id_converter.ids2tokens([unknown])
        names = [token for token, number in zip(tokens, ids) if number == unknown]
        if name in names:
            names = [word for word in words.split() if unknown in self._ids(word)]
        return names

    def report(self, folder: Path) -> None:
        """Log the number of unknown tokens of ``folder``, if there are any."""
        count = self.unknown.total()
        if not count:
            return
        share = count / self.total
        often = ", ".join(f"{_shown(t)} ({n})" for t, n in self.unknown.most_common(5))
        text = (
            f"preflight: {count} of {self.total} tokens of {folder} "
            f"({100 * share:.2g} %) are <unk>, most often {often}"
        )
        if share < _MANY_UNKNOWN:
            log(text)
        else:
            log(
                f"warning: {text}: the model cannot learn them: correct the texts, or "
                "run stages 4 and 5 again on texts that have them"
            )


def _shown(token: str) -> str:
    if token.isprintable():
        return token
    names = (f"U+{ord(char):04X} {unicodedata.name(char, '')}" for char in token)
    return " ".join(names).strip()


def check_texts(run: Run, args: argparse.Namespace, part: str) -> None:
    """Report unknown tokens, and find utterances with too few encoder frames.

    CTC or the encoder cannot process these utterances, so they are an error. With
    ``--drop_too_long true`` the training of this experiment leaves them out; see
    :mod:`espnet_cif_hkd.recipe.dropped`.

    Args:
        run: the run.
        args: arguments of the training.
        part: ``train`` or ``valid``.

    Raises:
        UserError: there are such utterances; the message names them and their list.
    """
    from espnet2.tasks.asr import ASRTask

    folder = dropped.data_folder(run, part)
    preprocess = ASRTask.build_preprocess_fn(args, False)
    if preprocess is None:
        log(f"preflight: without a preprocessor the text of {folder} is not checked")
        dropped.record(run, part, {})
        return
    counter = frame_counter(args)
    if counter is None:
        log(
            f"preflight: the frames of '{args.encoder}' are not known beforehand, "
            "the length of CTC targets is not checked"
        )
    counts, text = read_table(folder / "utt2num_samples"), read_table(folder / "text")
    old_list = folder / "dropped_too_long"
    gone = set(read_table(old_list)) - set(text) if old_list.is_file() else ()
    if gone:
        log(
            f"warning: version 0.2 removed {len(gone)} utterances from {folder}, see "
            f"{old_list}: run stage 4 again to have them back"
        )
    uses_ctc = (args.model_conf or {}).get("ctc_weight", 0.5) > 0
    tokenizer = _Tokenizer(preprocess)
    bad: dict[str, str] = {}
    tiny: list[str] = []
    for utterance, words in text.items():
        needed = frames_needed(tokenizer(words))
        if counter is None:
            continue
        samples = int(counts[utterance])
        frames = counter.encoded(samples)
        if samples < counter.fewest_samples:
            tiny.append(utterance)
        elif frames == 0:
            bad[utterance] = "too short for the encoder"
        elif uses_ctc and needed > frames:
            bad[utterance] = f"CTC needs {needed} frames, the encoder makes {frames}"
    tokenizer.report(folder)
    if tiny:
        # Stage 10 computes the spectrum of every utterance, also of dropped ones.
        raise UserError(
            f"{len(tiny)} utterances of {folder} are shorter than the window of the "
            f"front end: {first_few(tiny)}: run stage 4 with a larger "
            "--min_wav_duration"
        )
    listing = dropped.record(run, part, bad)
    if not bad:
        return
    named = "; ".join(f"{utt} ({why})" for utt, why in list(bad.items())[:5])
    if not run.options.drop_too_long:
        raise UserError(
            f"{len(bad)} utterances of {folder} have more tokens than frames: {named} "
            f"(all in {listing}): correct them, sub-sample less, or leave them out by "
            "--drop_too_long true"
        )
    if len(bad) == len(text):
        raise UserError(
            f"--drop_too_long true would leave nothing of {folder}: {named}: correct "
            "the texts, or sub-sample less"
        )
    log(f"preflight: {len(bad)} utterances of {folder} are not trained on: {named}")
