"""Stage 13: character, word and token error rates, equal to those of sclite."""

import tempfile
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io import processes
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import byte_order, first_few, read_table
from espnet_cif_hkd.recipe.checks import stamps
from espnet_cif_hkd.recipe.commands import call
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages.report import ScoredUtterance, result_text, results_md
from espnet_cif_hkd.recipe.stages.report import summary_row as summary_row
from espnet_cif_hkd.recipe.stages.sclite import align

UNITS = {"cer": "char", "wer": "word", "ter": "bpe"}


def _tokenize(
    run: Run, unit: str, cleaner: str, texts: list[str], log_file: Path
) -> list[list[str]]:
    """Split texts into units by ESPnet's tokenizers."""
    options = run.options
    extra = ["--bpemodel", run.paths.bpemodel]
    if unit != "bpe":
        extra = [
            *("--non_linguistic_symbols", options.nlsyms_txt),
            *("--remove_non_linguistic_symbols", "true"),
        ]
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "in", Path(name) / "out"
        write_text(source, "".join(f"utt {text}\n" for text in texts))
        call(
            "espnet2.bin.tokenize_text",
            [
                *("-f", "2-", "--input", str(source), "--output", str(target)),
                *("--token_type", unit, "--cleaner", cleaner, *extra),
            ],
            log_file,
            "stage 13",
        )
        lines = target.read_text(encoding="utf-8").split("\n")[: len(texts)]
    if len(lines) != len(texts):
        raise UserError(
            f"stage 13: {len(texts)} texts became {len(lines)} lines: see {log_file}"
        )
    return [line.split(" ") if line else [] for line in lines]


def paired_texts(reference: Path, hypothesis: Path) -> list[tuple[str, str, str]]:
    """Return ``(utterance, reference, hypothesis)`` for all utterances, sorted by id.

    Other scoring tools pair the lines of two files, so a missing line shifts all lines
    after it. Here an utterance that is only in one file is an error.

    Raises:
        UserError: one of the files lacks utterances.
    """
    refs = read_table(reference, "run stage 3 first")
    hyps = read_table(hypothesis, "run stage 12 first")
    for table, other, path in ((hyps, refs, hypothesis), (refs, hyps, reference)):
        missing = sorted(set(other) - set(table), key=byte_order)
        if missing:
            raise UserError(
                f"{path} lacks {len(missing)} of {len(other)} utterances "
                f"({first_few(missing)}): run stage 12 {stamps.AGAIN}"
            )
    return [(utt, refs[utt], hyps[utt]) for utt in sorted(refs, key=byte_order)]


def score_set(run: Run, name: str, kind: str) -> str:
    """Score one set in one kind of unit; return the summary line."""
    data, folder = run.paths.data_feats / name, run.paths.inference_dir() / name
    target = folder / f"score_{kind}"
    stamps.begin(target, 13)
    log_file = target / "tokenize_text.log"
    texts = paired_texts(data / "text", folder / "text")
    speakers = read_table(data / "utt2spk")
    unit = UNITS[kind]
    refs, hyps = (
        _tokenize(run, unit, cleaner, [row[column] for row in texts], log_file)
        for column, cleaner in (
            (1, run.options.cleaner),
            (2, run.options.hyp_cleaner),
        )
    )
    scored, trn = [], {"ref": "", "hyp": ""}
    for (utterance, _, _), ref, hyp in zip(texts, refs, hyps):
        identity = f"({speakers[utterance]}-{utterance})"
        trn["ref"] += f"{' '.join(ref)}\t{identity}\n"
        trn["hyp"] += f"{' '.join(hyp)}\t{identity}\n"
        result = align(ref, hyp, fold="-s" not in run.options.score_opts.split())
        scored.append(ScoredUtterance(speakers[utterance], utterance, result))
    for side, text in trn.items():
        write_text(target / f"{side}.trn", text)
    write_text(target / "result.txt", result_text(scored, str(target / "hyp.trn")))
    stamps.finish(target, 13, "")
    return summary_row(scored)


def score(run: Run) -> None:
    """Stage 13: score every decoded set, then write ``RESULTS.md``."""
    paths = run.paths
    for name in run.eval_sets():
        stamps.require(paths.inference_dir() / name, 12, ["text"])
        for kind in UNITS:
            if kind == "ter" and not Path(paths.bpemodel).is_file():
                continue
            row = score_set(run, name, kind)
            log(f"stage 13: {name} {kind.upper()}: {row}")
    script = Path("local/score.sh")
    if script.is_file():
        words = run.options.local_score_opts.split()
        status = processes.run(["bash", str(script), *words, str(paths.asr_exp)])
        if status != 0:
            raise UserError(
                f"local/score.sh failed with exit status {status}: "
                "see its messages above"
            )
    text = results_md(paths.asr_exp)
    write_text(paths.asr_exp / "RESULTS.md", text)
    print(text, flush=True)
