"""Where CIF and the CTC branch of the same model make their errors.

    cd egs2/fotaq/asr_hkd
    python3 ../../../benchmarks/cif_against_ctc.py exp/asr_x dump/raw/dev

Decodes the utterances of DATA_DIR, one by one, on the CPU, with a trained ``model:
cif`` in EXP_DIR in four ways: greedy CTC (best path), greedy CIF, greedy CIF whose
alpha is scaled to the true number of tokens, and greedy CIF that fires at the spikes of
CTC's best path, whatever ``ctc_guide_firing`` is. A model with ``nar_conf`` has a fifth
way, its one-pass decoder. Prints error rates, differences to CTC with their intervals,
how far the firing of CIF drifts from CTC's forced alignment, errors by position in the
sentence, and by length error of CIF. Errors are those of an alignment like sclite's, of
characters, words, and tokens of the model. Several EXP_DIR are models of one
configuration with different seeds; their errors are added up.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import describe, table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from ablation.errors import by_position  # noqa: E402
from ablation.significance import compare  # noqa: E402
from ablation.verdict import bracket, in_a_word, signed  # noqa: E402

from espnet_cif_hkd.errors import UserError  # noqa: E402
from espnet_cif_hkd.recipe.stages.sclite import Alignment, align  # noqa: E402

AT_SPIKES = "CIF at CTC's spikes"
WAYS = ("CTC", "CIF", "CIF, true length", AT_SPIKES)
ONE_PASS = "one pass"  # a fifth way of models with nar_conf
_FAR = 3  # length errors from here on share a row


@dataclass
class Utterance:
    """An utterance and what was recognised.

    Attributes:
        reference: Token ids without ``<eos>``.
        fired: Number of fired vectors; one more than tokens is right.
        found: Token ids by way.
        drift: :func:`~espnet_cif_hkd.losses.ctc_guide.ctc_drift` of each token of the
            reference, with alpha scaled to the true length. Empty if CTC has too few
            frames.
    """

    reference: list[int]
    fired: int
    found: dict[str, list[int]] = field(default_factory=dict)
    drift: list[float] = field(default_factory=list)


@torch.no_grad()
def recognise(
    model: Any, speech: torch.Tensor, lengths: torch.Tensor, reference: Sequence[int]
) -> Utterance:
    """Decode one utterance in all ways.

    Args:
        model: In evaluation mode.
        speech: ``(1, S)`` samples or ``(1, F, C)`` features.
        lengths: ``(1,)``.
        reference: Token ids without ``<eos>``.
    """
    from espnet_cif_hkd.decoder.ctc_firing import CTCFiring
    from espnet_cif_hkd.search.greedy import greedy_search
    from espnet_cif_hkd.search.nar import one_pass_search

    hs_pad, hlens = model.encode(speech, lengths)
    if isinstance(hs_pad, tuple):
        hs_pad = hs_pad[0]
    decoder = model.decoder
    decoder.ctc_firing = None  # alpha decides where tokens fire
    fired = int(decoder.fire(hs_pad, hlens).lengths)
    found = Utterance(list(reference), fired)
    found.drift = drift(model, hs_pad, hlens, reference)
    best = model.ctc.argmax(hs_pad)[0, : int(hlens)]
    tokens = torch.unique_consecutive(best).tolist()
    found.found["CTC"] = [token for token in tokens if token != model.blank_id]
    # As many tokens as fired, also where there are fewer frames.
    true = torch.tensor([len(reference) + 1])
    for way, target in (("CIF", None), ("CIF, true length", true)):
        limit = -max(1, fired, len(reference) + 1)
        (one,) = greedy_search(decoder, hs_pad, hlens, limit, target)
        found.found[way] = one.yseq[1:-1].tolist()
    decoder.ctc_firing = CTCFiring(model.ctc, model.blank_id)
    limit = -max(1, int(decoder.fire(hs_pad, hlens).lengths))
    (one,) = greedy_search(decoder, hs_pad, hlens, limit)
    found.found[AT_SPIKES] = one.yseq[1:-1].tolist()
    decoder.ctc_firing = None
    if model.nar is not None:
        (one,) = one_pass_search(model.nar, hs_pad, hlens, firing=decoder)
        found.found[ONE_PASS] = one.yseq[1:-1].tolist()
    return found


def drift(
    model: Any, hs_pad: torch.Tensor, hlens: torch.Tensor, reference: Sequence[int]
) -> list[float]:
    """See :class:`Utterance`; other arguments are those of :func:`recognise`."""
    from espnet_cif_hkd.losses.ctc_guide import ctc_drift, ctc_spikes

    tokens, length = torch.tensor([list(reference)]), torch.tensor([len(reference)])
    spikes = ctc_spikes(
        model.ctc.log_softmax(hs_pad), hlens, tokens, length, model.blank_id
    )
    if not len(reference) or bool((spikes < 0).any()):
        return []
    alpha = model.decoder.fire(hs_pad, hlens, length + 1).alpha
    return ctc_drift(alpha, spikes)[0].tolist()


def rate(aligned: Sequence[Alignment]) -> float:
    """Error rate in percent; NaN without a reference token."""
    n_tokens = sum(one.n_ref for one in aligned)
    return (
        100 * sum(one.errors for one in aligned) / n_tokens if n_tokens else torch.nan
    )


def length_error(utterances: Sequence[Utterance], way: str) -> float:
    """Sum of absolute length errors relative to the number of tokens, in percent.

    That of CIF is the difference of fired vectors and tokens with ``<eos>``.
    """
    wrong = total = 0
    for one in utterances:
        if way == "CIF":
            wrong += abs(one.fired - len(one.reference) - 1)
        else:
            wrong += abs(len(one.found[way]) - len(one.reference))
        total += len(one.reference) + (way == "CIF")
    return 100 * wrong / total if total else torch.nan


class Analysis:
    """The tables of all utterances.

    Args:
        utterances: What was recognised; with several models those of the first, then
            the same ones of the second, and so on.
        names: Names of the tokens.
        to_text: From names of tokens to the text.
        n_models: Number of models.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        names: Sequence[str],
        to_text: Any,
        n_models: int = 1,
    ) -> None:
        self.utterances = utterances
        self.n_models = n_models
        self.ways = tuple(utterances[0].found) if utterances else WAYS

        def aligned(way: str, split: Any) -> list[Alignment]:
            def units(ids: Sequence[int]) -> list[str]:
                tokens = [names[i] for i in ids]
                return tokens if split is None else list(split(to_text(tokens)))

            return [
                align(units(one.reference), units(one.found[way])) for one in utterances
            ]

        def all_ways(split: Any) -> dict[str, list[Alignment]]:
            return {way: aligned(way, split) for way in self.ways}

        self.tokens = all_ways(None)
        self.chars = all_ways(lambda text: text.replace(" ", ""))
        self.spelled = all_ways(list)
        self.words = all_ways(str.split)

    def rates(self) -> str:
        """Error rates of each way."""
        head = ["way", "CER, %", "without spaces, %", "WER, %", "tokens, %"]
        head += ["subst., %", "del., %", "ins., %", "length error, %"]
        rows: list[list[object]] = []
        for way in self.ways:
            tokens = self.tokens[way]
            n_tokens = max(1, sum(one.n_ref for one in tokens))
            cells = [rate(kind[way]) for kind in (self.spelled, self.chars, self.words)]
            cells.append(rate(tokens))
            for kind in ("substituted", "deleted", "inserted"):
                count = sum(getattr(one, kind) for one in tokens)
                cells.append(100 * count / n_tokens)
            cells.append(length_error(self.utterances, way))
            rows.append([way, *(round(cell, 1) for cell in cells)])
        return table(head, rows)

    def differences(self) -> str:
        """Each way minus CTC, with intervals of 95 %."""
        head = ["way", "of", "minus CTC, points", "over utterances", "and models"]
        head += ["over models", "relative, %", "over utterances, %", "finding"]
        kinds = {"CER": self.spelled, "WER": self.words, "tokens": self.tokens}
        rows: list[list[object]] = []
        for way in self.ways[1:]:
            for kind, alignments in kinds.items():
                found = compare(
                    np.array([one.n_ref for one in alignments[way]])[: self.n_each],
                    self.errors(alignments["CTC"]),
                    self.errors(alignments[way]),
                    range(self.n_models),
                )
                intervals = [found.absolute_utterances, found.absolute_both]
                row = [way, kind, signed(found.absolute)]
                row += [bracket(one) for one in (*intervals, found.over_seeds)]
                row += [signed(found.relative), bracket(found.relative_utterances)]
                rows.append([*row, in_a_word(found)])
        return table(head, rows)

    @property
    def n_each(self) -> int:
        """Number of utterances of one model."""
        return len(self.utterances) // self.n_models

    def errors(self, aligned: Sequence[Alignment]) -> np.ndarray:
        """Errors of each model in each utterance, (models, utterances)."""
        return np.array([one.errors for one in aligned]).reshape(self.n_models, -1)

    def drifts(self) -> str:
        """How far the firing is from the tokens, in tokens."""
        found = np.abs([one for each in self.utterances for one in each.drift])
        if not len(found):
            return "CTC has too few frames for its tokens in all utterances"
        shares = [100 * float((found > limit).mean()) for limit in (0.5, 1, 2)]
        head = ["tokens", "mean drift", "> 0.5, %", "> 1, %", "> 2, %"]
        row = [len(found), round(float(found.mean()), 2)]
        return table(head, [[*row, *(round(share) for share in shares)]])

    def positions(self) -> str:
        """Token error rate in each tenth of the reference."""
        counts = {way: by_position(self.tokens[way]) for way in self.ways}
        rows = []
        for tenth, (n_tokens, _) in counts["CTC"].items():
            errors = [counts[way][tenth][1] for way in self.ways]
            rows.append(
                [tenth, *(round(100 * n / max(1, n_tokens), 1) for n in errors)]
            )
        return table(["position", *(f"{way}, %" for way in self.ways)], rows)

    def lengths(self) -> str:
        """Token error rate by the length error of CIF."""
        groups: dict[int, list[int]] = {}
        for number, one in enumerate(self.utterances):
            error = one.fired - len(one.reference) - 1
            groups.setdefault(max(-_FAR, min(_FAR, error)), []).append(number)
        rows = []
        for error, members in sorted(groups.items()):
            name = f"{error:+d}" if error else "0"
            if abs(error) == _FAR:
                name += " and more" if error > 0 else " and less"
            rates = [rate([self.tokens[way][n] for n in members]) for way in self.ways]
            rows.append([name, len(members), *(round(one, 1) for one in rates)])
        head = ["fired − tokens", "utterances", *(f"{way}, %" for way in self.ways)]
        return table(head, rows)


def examples(args: Any, folder: Path) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Yield speech ``(1, …)`` and token ids of each utterance of a data folder.

    Args:
        args: Arguments of the training, for its preprocessor.
        folder: ``wav.scp`` and ``text``.

    Raises:
        UserError: A file is missing, or the recordings are in segments.
    """
    from espnet2.tasks.asr import ASRTask

    for name in ("wav.scp", "text"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: this file does not exist; name a data folder with "
                "wav.scp and text, such as dump/raw/dev"
            )
    if (folder / "segments").exists():
        raise UserError(
            f"{folder}/segments: recordings in segments are not read here; use the "
            "folder of stage 3, such as dump/raw/dev"
        )
    args.ngpu = 0
    loader = ASRTask.build_streaming_iterator(
        [(f"{folder}/wav.scp", "speech", "sound"), (f"{folder}/text", "text", "text")],
        dtype="float32",
        batch_size=1,
        num_workers=0,
        preprocess_fn=ASRTask.build_preprocess_fn(args, False),
        collate_fn=ASRTask.build_collate_fn(args, False),
    )
    for _, batch in loader:
        yield batch["speech"], batch["text"][0].tolist()


def load(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the model in evaluation mode and the arguments of its training.

    Raises:
        UserError: A file is missing, or the model is no ``model: cif`` with CTC.
    """
    from espnet2.tasks.asr import ASRTask

    import espnet_cif_hkd
    from espnet_cif_hkd.models.cif import CIFASRModel

    espnet_cif_hkd.register()
    for path in (folder / "config.yaml", folder / name):
        if not path.is_file():
            raise UserError(f"{path}: this file does not exist; name a trained model")
    model, args = ASRTask.build_model_from_file(
        str(folder / "config.yaml"), str(folder / name), "cpu"
    )
    if not isinstance(model, CIFASRModel) or model.ctc is None:
        raise UserError(f"{folder}: needs model: cif with ctc_weight greater than 0")
    return model.eval(), args


def analyse(
    folders: Sequence[Path],
    data: Path,
    name: str = "valid.acc.ave.pth",
    limit: int | None = None,
) -> Analysis:
    """Decode the utterances of a data folder with one or more models.

    Args:
        folders: Experiments of trainings with one configuration.
        data: Folder with ``wav.scp`` and ``text``.
        name: File of the parameters in each folder.
        limit: Number of utterances; None: all.

    Raises:
        UserError: See :func:`load` and :func:`examples`; the models have different
            tokens or decoders.
    """
    from espnet2.text.build_tokenizer import build_tokenizer

    found: list[Utterance] = []
    models = [load(folder, name) for folder in folders]
    first, first_args = models[0]
    for folder, (model, _) in zip(folders, models, strict=True):
        if model.token_list != first.token_list:
            raise UserError(f"{folder}: has other tokens than {folders[0]}")
        if (model.nar is None) != (first.nar is None):
            raise UserError(f"{folder}: only one of it and {folders[0]} has nar_conf")
    for model, args in models:
        for speech, reference in itertools.islice(examples(args, data), limit):
            lengths = torch.tensor([speech.size(1)])
            found.append(recognise(model, speech, lengths, reference))
    tokenizer = build_tokenizer(first_args.token_type, first_args.bpemodel)
    return Analysis(found, first.token_list, tokenizer.tokens2text, len(models))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "exp_dir", type=Path, nargs="+", help="experiment of a training"
    )
    parser.add_argument("data_dir", type=Path, help="folder with wav.scp and text")
    parser.add_argument("--model", default="valid.acc.ave.pth")
    parser.add_argument("--utterances", type=int, help="the first; all by default")
    args = parser.parse_args()
    begin = time.monotonic()
    try:
        found = analyse(args.exp_dir, args.data_dir, args.model, args.utterances)
    except UserError as error:
        sys.exit(f"cif_against_ctc: {error}")
    print(describe("espnet", threads=torch.get_num_threads()))
    seconds = time.monotonic() - begin
    print(f"{found.n_models} models, {found.n_each} utterances, {seconds:.0f} s\n")
    tables = (found.rates, found.differences, found.drifts)
    tables += (found.positions, found.lengths)
    for part in tables:
        print(part() + "\n")


if __name__ == "__main__":
    main()
