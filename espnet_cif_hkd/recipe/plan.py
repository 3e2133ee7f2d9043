"""The stages, their order, and the reuse of their outputs."""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import read_lines
from espnet_cif_hkd.recipe import hooks as store
from espnet_cif_hkd.recipe.checks import config as config_check
from espnet_cif_hkd.recipe.checks import preflight, stamps
from espnet_cif_hkd.recipe.checks.criteria import check_criteria, check_frontend
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.machines import require_machines
from espnet_cif_hkd.recipe.options import LAST_STAGE, Options
from espnet_cif_hkd.recipe.share import pack, upload
from espnet_cif_hkd.recipe.stages import (
    data,
    decode,
    filter_data,
    format_audio,
    lm,
    score,
    tokens,
    train,
)

_DATA = Path("data")
# Inputs that local/data.sh declares, one per line: a file, a folder with all its files,
# or an environment variable as $NAME. Without this file a change of the corpus cannot
# be detected, and stage 1 always runs again.
_INPUTS = _DATA / ".inputs"


@dataclass(frozen=True)
class Stage:
    """A stage: number, name, function, and a check whether its output can be reused."""

    number: int
    name: str
    run: Callable[[Run], None]
    up_to_date: Callable[[Run], bool] = lambda run: False


def _data_fingerprint(run: Run) -> str:
    """Return the fingerprint of stage 1: options, local scripts, declared inputs."""
    mark = stamps.Fingerprint().words(run.options.local_data_opts)
    mark.words(*data.source_sets(run)).files("local", "db.sh")
    for line in read_lines(_INPUTS) if _INPUTS.is_file() else []:
        if line.startswith("$"):
            mark.words(line, os.environ.get(line[1:]))
        elif line:
            mark.states(line)
    return mark.hexdigest()


def _data_up_to_date(run: Run) -> bool:
    needs = [f"{name}/{f}" for name in data.source_sets(run) for f in data.DATA_FILES]
    if not _INPUTS.is_file():
        log(f"stage 1 ({STAGES[0].name}): runs again, because {_INPUTS} is missing")
        return False
    return stamps.is_done(_DATA, 1, _data_fingerprint(run), needs)


def _prepare_data(run: Run) -> None:
    stamps.begin(_DATA, 1)
    _INPUTS.unlink(missing_ok=True)
    data.prepare(run)
    stamps.finish(_DATA, 1, _data_fingerprint(run))


def _speed_perturb(run: Run) -> None:
    if not run.options.speed_perturb_factors:
        log("stage 2: no speed perturbation requested")
        return
    stamps.require(_DATA, 1, [])
    stamps.require(_DATA / run.paths.source_train_set, 1, data.DATA_FILES)
    target = _DATA / run.paths.train_set
    stamps.begin(target, 2)
    data.speed_perturb(run)
    stamps.finish(target, 2, "")


def _format_audio(run: Run) -> None:
    stamps.require(_DATA, 1, [])
    for name in format_audio.data_sets(run):
        perturbed = name == run.paths.train_set != run.paths.source_train_set
        stamps.require(_DATA / name, 2 if perturbed else 1, data.DATA_FILES)
    format_audio.format_audio(run)


def _lm_stats_done(run: Run) -> bool:
    mark = lm.stats_fingerprint(run)
    return stamps.is_done(run.paths.lm_stats_dir, 6, mark, lm.SHAPES)


def _lm_done(run: Run) -> bool:
    needs = ["config.yaml", run.options.inference_lm]
    return stamps.is_done(run.paths.lm_exp, 7, lm.fingerprint(run), needs)


def _perplexity_done(run: Run) -> bool:
    folder = run.paths.lm_exp / "perplexity_test"
    return stamps.is_done(folder, 8, lm.perplexity_fingerprint(run), ["ppl"])


def _decoding_done(run: Run) -> bool:
    return all(decode.up_to_date(run, name) for name in run.eval_sets())


def _training_done(run: Run) -> bool:
    needs = ["config.yaml", run.options.inference_asr_model]
    return stamps.is_done(run.paths.asr_exp, 11, train.fingerprint(run), needs)


# Stages 3 and 12 decide for each set whether to reuse it.
STAGES = (
    Stage(1, "data preparation", _prepare_data, _data_up_to_date),
    Stage(2, "speed perturbation", _speed_perturb),
    Stage(3, "audio files", _format_audio),
    Stage(4, "filtering by length", filter_data.filter_data, filter_data.up_to_date),
    Stage(5, "token list", tokens.make_token_list, tokens.up_to_date),
    Stage(6, "language model statistics", lm.collect_stats, _lm_stats_done),
    Stage(7, "language model training", lm.train, _lm_done),
    Stage(8, "perplexity", lm.perplexity, _perplexity_done),
    Stage(10, "statistics", train.collect_stats, train.stats_up_to_date),
    Stage(11, "training", train.train, _training_done),
    Stage(12, "decoding", decode.decode, _decoding_done),
    Stage(13, "scoring", score.score),
    Stage(14, "packing", pack.pack),
    Stage(15, "uploading", upload.upload),
)


def selected(options: Options) -> list[int]:
    """Return the numbers of the stages of a command line."""
    skipped = {int(word) for word in options.skip_stages.split()} | {9}
    if options.skip_data_prep:
        skipped |= {1, 2, 3, 4, 5}
    if options.skip_train:
        skipped |= {2, 4, 5, 6, 7, 8, 10, 11}
    elif not options.use_lm:
        skipped |= {6, 7, 8}
    if options.skip_eval:
        skipped |= {12, 13}
    if options.skip_packing:
        skipped.add(14)
    if options.skip_upload_hf:
        skipped.add(15)
    last = min(options.stop_stage, LAST_STAGE)
    return [n for n in range(max(1, options.stage), last + 1) if n not in skipped]


class Checks:
    """Checks of configuration and data; each runs once, when it is first needed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.args: argparse.Namespace | None = None
        self.config_checked = self.data_checked = False

    def config(self) -> None:
        if not self.config_checked:
            self.config_checked = True
            self.args = config_check.check_config(self.run)
            if self.args is not None:
                check_frontend(self.args)
                options = self.run.options
                check_criteria(self.args, None, options.token_type, options.asr_config)

    def data(self) -> None:
        if self.args is not None and not self.data_checked:
            self.data_checked = True
            log("preflight: checking data and model")
            preflight.check_data(self.run, self.args)
            store.dump_teacher(self.run, self.args)


# Stages that need configuration files.
_CONFIGURED = (6, 7, 10, 11, 12)


def run_stages(run: Run) -> None:
    """Run the stages of ``run.stages`` one after the other.

    Raises:
        UserError: an input is wrong, or a stage failed.
    """
    begun = time.monotonic()
    if not run.stages:
        log("no stage to run: --skip_… leaves out all requested stages")
    else:
        log("stages to run: " + " ".join(map(str, run.stages)))
    if 15 in run.stages:
        # Before a training of days, not after it.
        upload.check(run)
    if {7, 11} & set(run.stages):
        require_machines(run.machines)
    checks = Checks(run)
    stages = [stage for stage in STAGES if stage.number in run.stages]
    if any(
        stage.number in _CONFIGURED
        and not (run.options.reuse and stage.up_to_date(run))
        for stage in stages
    ):
        checks.config()
    for stage in stages:
        if run.options.reuse and stage.up_to_date(run):
            log(f"stage {stage.number} ({stage.name}): up to date, reused")
            continue
        if stage.number in _CONFIGURED:
            checks.config()
        if stage.number in (10, 11):
            checks.data()
        log(f"stage {stage.number} ({stage.name})")
        stage.run(run)
    log(f"finished, {time.monotonic() - begun:.0f} s")
