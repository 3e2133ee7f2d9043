"""Stages 10 and 11: statistics and training of the recogniser."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import read_table
from espnet_cif_hkd.plugin.user_modules import module_files
from espnet_cif_hkd.recipe import dropped
from espnet_cif_hkd.recipe.checks import named_files, stamps
from espnet_cif_hkd.recipe.commands import rotate, train_model, write_run_script
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.hooks import stale_stores, teacher_inputs
from espnet_cif_hkd.recipe.options import Options
from espnet_cif_hkd.recipe.stages.filter_data import DUMP_FILES
from espnet_cif_hkd.recipe.stages.statistics import aggregate, collect, split_scps
from espnet_cif_hkd.recipe.stages.tokens import read_token_list, tokenizer_files

MODULE = "espnet2.bin.asr_train"


def text_options(run: Run) -> list[str]:
    """Return the options of the training for reading text."""
    options, paths = run.options, run.paths
    return [
        *("--use_preprocessor", "true"),
        *("--bpemodel", paths.bpemodel),
        *("--token_type", options.token_type),
        *("--token_list", str(paths.token_list)),
        *("--non_linguistic_symbols", options.nlsyms_txt),
        *("--cleaner", options.cleaner, "--g2p", options.g2p),
    ]


def config_options(run: Run) -> list[str]:
    """Return the options for the configuration file and the sampling rate."""
    config = run.options.asr_config
    return [
        *(["--config", config] if config else []),
        *("--frontend_conf", f"fs={run.options.fs}"),
    ]


def _data(kind: str, folder: Path) -> list[str]:
    flag = f"--{kind}_data_path_and_name_and_type"
    return [
        *(flag, f"{folder}/wav.scp,speech,sound"),
        *(flag, f"{folder}/text,text,text"),
    ]


def collect_stats(run: Run) -> None:
    """Stage 10: collect shapes of speech and text, and sums for the normalisation."""
    options, paths = run.options, run.paths
    train_dir, valid_dir = paths.train_dir, paths.data_feats / options.valid_set
    for folder in (train_dir, valid_dir):
        stamps.require(folder, 4, DUMP_FILES)
    vocabulary = len(read_token_list(paths.token_list))
    folder = paths.asr_stats_dir
    stamps.begin(folder, 10)
    write_run_script(folder, run.arguments, 10)
    logdir = folder / "logdir"
    sums = options.feats_normalize == "global_mvn"
    # Without sums of features the model is not needed.
    collected = ("--model_conf", "extract_feats_in_collect_stats=false")
    without_features = () if sums else collected

    def lines(source: Path) -> list[str]:
        table = read_table(source / "wav.scp")
        return [f"{key} {value}" for key, value in table.items()]

    outputs = collect(
        MODULE,
        folder,
        {"train": ("train", lines(train_dir)), "valid": ("valid", lines(valid_dir))},
        lambda number, output: [
            *("--collect_stats", "true"),
            *text_options(run),
            *("--train_shape_file", f"{logdir}/train.{number}.scp"),
            *("--valid_shape_file", f"{logdir}/valid.{number}.scp"),
            *("--output_dir", str(output), "--ngpu", "0"),
            *config_options(run),
            *_data("train", train_dir),
            *_data("valid", valid_dir),
            *options.asr_args.split(),
            *without_features,
        ],
        options.nj,
        "stage 10",
    )
    aggregate(outputs, folder, vocabulary, options.token_type, sums)
    stamps.finish(folder, 10, stats_fingerprint(run))
    log(f"stage 10: statistics in {folder}")


def _stats_needs(run: Run) -> list[str]:
    token_type = run.options.token_type
    needs = [
        f"{part}/{name}"
        for part in ("train", "valid")
        for name in ("speech_shape", "text_shape", f"text_shape.{token_type}")
    ]
    if run.options.feats_normalize == "global_mvn":
        needs.append("train/feats_stats.npz")
    return needs


def _shards(run: Run) -> Path:
    shapes = dropped.sources(run, "train")[1]
    return shapes.parent / f"splits{run.options.num_splits_asr}"


def _split(run: Run) -> None:
    """Split data and shapes into shards, if ``--num_splits_asr`` is above 1."""
    folder, shapes = dropped.sources(run, "train")
    if run.options.num_splits_asr > 1:
        sources = [folder / "wav.scp", folder / "text", shapes / "speech_shape"]
        sources.append(shapes / f"text_shape.{run.options.token_type}")
        split_scps(sources, run.options.num_splits_asr, _shards(run))


def _train_data(run: Run) -> list[str]:
    folder, shapes = dropped.sources(run, "train")
    extra: list[str] = []
    if run.options.num_splits_asr > 1:
        folder = shapes = _shards(run)
        extra = ["--multiple_iterator", "true"]
    text_shape = shapes / f"text_shape.{run.options.token_type}"
    return [
        *_data("train", folder),
        *("--train_shape_file", str(shapes / "speech_shape")),
        *("--train_shape_file", str(text_shape)),
        *extra,
    ]


def training_arguments(run: Run) -> list[str]:
    """Return the command line of stage 11."""
    options, paths = run.options, run.paths
    valid_dir, shapes = dropped.sources(run, "valid")
    normalize: list[str] = []
    if options.feats_normalize == "global_mvn":
        statistics = paths.asr_stats_dir / "train" / "feats_stats.npz"
        normalize = [
            *("--normalize", "global_mvn"),
            *("--normalize_conf", f"stats_file={statistics}"),
        ]
    pretrained = options.pretrained_model
    return [
        *text_options(run),
        *_data("valid", valid_dir),
        *("--valid_shape_file", str(shapes / "speech_shape")),
        *("--valid_shape_file", str(shapes / f"text_shape.{options.token_type}")),
        *("--resume", "true"),
        *(["--init_param", pretrained] if pretrained else []),
        *("--ignore_init_mismatch", options.ignore_init_mismatch),
        *("--fold_length", str(options.asr_speech_fold_length * 100)),
        *("--fold_length", str(options.asr_text_fold_length)),
        *("--output_dir", str(paths.asr_exp), "--ngpu", str(options.ngpu)),
        *config_options(run),
        *normalize,
        *_train_data(run),
        *options.asr_args.split(),
    ]


def train(run: Run) -> None:
    """Stage 11: train the recogniser; resume from its checkpoint if there is one."""
    options, paths = run.options, run.paths
    stamps.require(paths.asr_stats_dir, 10, _stats_needs(run))
    for folder in (paths.train_dir, paths.data_feats / options.valid_set):
        stamps.require(folder, 4, DUMP_FILES)
    mark, data = fingerprint(run), _data_fingerprint(run)
    stamps.require_same_data(paths.asr_exp, 11, data, "asr_tag")
    if any(paths.asr_exp.glob("checkpoint*.pth")):
        log(f"stage 11: resuming from {paths.asr_exp}/checkpoint.pth")
    stamps.begin(paths.asr_exp, 11, data)
    write_run_script(paths.asr_exp, run.arguments, 11)
    dropped.write_kept(run)
    log_file = paths.asr_exp / "train.log"
    rotate(log_file)
    log(f"stage 11: training, the log is {log_file}")
    _split(run)
    arguments = training_arguments(run)
    train_model(MODULE, arguments, log_file, "stage 11", options.ngpu, run.machines)
    stamps.finish(paths.asr_exp, 11, mark, data)


def tokens_fingerprint(run: Run) -> stamps.Fingerprint:
    """Return a fingerprint of the conversion of text to tokens."""
    options = run.options
    mark = stamps.Fingerprint().words(
        *(options.token_type, options.nlsyms_txt, options.cleaner, options.g2p)
    )
    return mark.files(run.paths.token_list, options.nlsyms_txt, *tokenizer_files(run))


def _sets(run: Run) -> list[str]:
    return [run.paths.train_set, run.options.valid_set]


def stats_fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 10."""
    options, feats = run.options, run.paths.data_feats
    mark = tokens_fingerprint(run)
    mark.words(options.fs, options.asr_args, options.feats_normalize)
    for name in _sets(run):
        # The tables have names of audio files; this changes with their content.
        mark.words(stamps.recorded(feats / "org" / name, 3, "fingerprint"))
        tables = ("wav.scp", "text", "utt2num_samples")
        mark.files(*(feats / name / table for table in tables))
    mark.files(*module_files(options.user_module))
    config = [options.asr_config] if options.asr_config else []
    return mark.files(*config).hexdigest()


def fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 11."""
    options = run.options
    mark = stamps.Fingerprint().words(
        *(stats_fingerprint(run), options.pretrained_model, options.ngpu),
        *(options.ignore_init_mismatch, options.num_splits_asr),
        *(options.asr_speech_fold_length, options.asr_text_fold_length),
    )
    mark.words(*run.machines.mark)
    # Such as initial parameters. teacher_inputs() has those of the two mappings.
    mark.files(*named_files.in_options(options.asr_args, options.pretrained_model))
    mappings = ("frontend_conf", "model_conf")
    mark.files(*named_files.in_config(options.asr_config, mappings))
    mark.files(*dropped.listings(run))
    args = configured_args(options)
    # The header of a stale store does not show that its teacher has changed.
    mark.words(*stale_stores(run, args))
    return mark.files(*teacher_inputs(run, args)).hexdigest()


def _data_fingerprint(run: Run) -> str:
    """Return the fingerprint of the training data, which a resumed training needs."""
    tables = ("text", "utt2num_samples")
    mark = stamps.Fingerprint()
    mark.files(*dropped.listings(run))
    return mark.files(*(run.paths.train_dir / name for name in tables)).hexdigest()


def configured_args(options: Options) -> argparse.Namespace:
    """Return ``frontend`` and two mappings of --asr_config, changed by --asr_args.

    The mappings ``frontend_conf`` and ``model_conf`` are empty for a configuration that
    cannot be read, which the checks before the training report.
    """
    import yaml
    from espnet2.utils.nested_dict_action import NestedDictAction

    config: Any = None
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        config = yaml.safe_load(Path(options.asr_config).read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False
    )
    config = config if isinstance(config, dict) else {}
    parser.add_argument("--frontend", default=config.get("frontend"))
    for name in ("frontend_conf", "model_conf"):
        parser.add_argument(f"--{name}", action=NestedDictAction)
        conf = config.get(name)
        parser.set_defaults(**{name: conf if isinstance(conf, dict) else {}})
    found = parser.parse_args([])
    with suppress(argparse.ArgumentError):
        found = parser.parse_known_args(options.asr_args.split())[0]
    return found


def stats_up_to_date(run: Run) -> bool:
    """Whether a run with ``--reuse true`` can skip stage 10."""
    mark = stats_fingerprint(run)
    return stamps.is_done(run.paths.asr_stats_dir, 10, mark, _stats_needs(run))
