"""Stages 6 to 8: statistics, training and perplexity of the language model."""

from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.atomic import write_text
from espnet_cif_hkd.io.log import log
from espnet_cif_hkd.io.tables import read_lines, single_spaced
from espnet_cif_hkd.recipe.checks import named_files, stamps
from espnet_cif_hkd.recipe.checks.trained import check_tokens
from espnet_cif_hkd.recipe.commands import call, rotate, train_model, write_run_script
from espnet_cif_hkd.recipe.context import Run
from espnet_cif_hkd.recipe.stages.statistics import aggregate, collect, split_scps
from espnet_cif_hkd.recipe.stages.tokens import read_token_list
from espnet_cif_hkd.recipe.stages.train import text_options, tokens_fingerprint

SHAPES = ("train/text_shape", "valid/text_shape")


def _train_text(run: Run) -> Path:
    return run.paths.data_feats / "lm_train.txt"


def _text_options(run: Run) -> list[str]:
    dev = f"{_spaced(run, 'lm_dev_text')},text,text"
    return [*text_options(run), "--valid_data_path_and_name_and_type", dev]


def _config(run: Run) -> list[str]:
    config = run.options.lm_config
    return ["--config", config] if config else []


def _lines(path: str | Path) -> list[str]:
    _require(Path(path))
    return [line for line in read_lines(path) if line]


def _require(text: Path) -> None:
    if not text.is_file():
        raise UserError(f"{text} is missing: run stages 3 and 4, or name another text")


def _spaced(run: Run, option: str) -> str:
    """Return the path of a text with normalised white space, as stage 4 writes."""
    path = Path(getattr(run.paths, option))
    _require(path)
    lines = read_lines(path)
    spaced = [single_spaced(line) for line in lines]
    changed = sum(a != b for a, b in zip(lines, spaced, strict=True))
    if not changed:
        return str(path)
    copy = run.paths.data_feats / f"{option}.txt"
    write_text(copy, "".join(f"{line}\n" for line in spaced))
    log(f"--{option} {path}: white space of {changed} lines normalised in {copy}")
    return str(copy)


def collect_stats(run: Run) -> None:
    """Stage 6: collect the shapes of the language model's texts."""
    folder = run.paths.lm_stats_dir
    stamps.require(run.paths.data_feats, 4, ["lm_train.txt"])
    vocabulary = len(read_token_list(run.paths.token_list))
    stamps.begin(folder, 6)
    write_run_script(folder, run.arguments, 6)
    logdir = folder / "logdir"
    texts = _text_options(run)
    outputs = collect(
        "espnet2.bin.lm_train",
        folder,
        {
            "train": ("train", _lines(_train_text(run))),
            "valid": ("dev", _lines(run.paths.lm_dev_text)),
        },
        lambda number, output: [
            *("--collect_stats", "true"),
            *texts,
            *("--train_data_path_and_name_and_type", f"{_train_text(run)},text,text"),
            *("--train_shape_file", f"{logdir}/train.{number}.scp"),
            *("--valid_shape_file", f"{logdir}/dev.{number}.scp"),
            *("--output_dir", str(output), "--ngpu", "0"),
            *_config(run),
            *run.options.lm_args.split(),
        ],
        run.options.nj,
        "stage 6",
    )
    aggregate(outputs, folder, vocabulary, run.options.token_type, sums=True)
    stamps.finish(folder, 6, stats_fingerprint(run))


def _split(run: Run, shape: Path) -> list[str]:
    number = run.options.num_splits_lm
    if number == 1:
        data, shapes, extra = _train_text(run), shape, []
    else:
        folder = run.paths.lm_stats_dir / f"splits{number}"
        split_scps([_train_text(run), shape], number, folder)
        data, shapes = folder / "lm_train.txt", folder / shape.name
        extra = ["--multiple_iterator", "true"]
    return [
        *("--train_data_path_and_name_and_type", f"{data},text,text"),
        *("--train_shape_file", str(shapes)),
        *extra,
    ]


def train(run: Run) -> None:
    """Stage 7: train the language model; resume from its checkpoint."""
    options, paths = run.options, run.paths
    tokens = options.token_type
    needs = [*SHAPES, f"train/text_shape.{tokens}", f"valid/text_shape.{tokens}"]
    stamps.require(paths.lm_stats_dir, 6, needs)
    mark = fingerprint(run)
    data = stamps.Fingerprint().files(_train_text(run)).hexdigest()
    stamps.require_same_data(paths.lm_exp, 7, data, "lm_tag")
    check_tokens(paths.lm_exp, paths.token_list, "lm_tag")
    stamps.begin(paths.lm_exp, 7, data)
    write_run_script(paths.lm_exp, run.arguments, 7)
    log_file = paths.lm_exp / "train.log"
    rotate(log_file)
    shape = paths.lm_stats_dir / "train" / f"text_shape.{tokens}"
    valid_shape = paths.lm_stats_dir / "valid" / f"text_shape.{tokens}"
    train_model(
        "espnet2.bin.lm_train",
        [
            *("--ngpu", str(options.ngpu)),
            *_text_options(run),
            *("--valid_shape_file", str(valid_shape)),
            *("--fold_length", str(options.lm_fold_length)),
            *("--resume", "true", "--output_dir", str(paths.lm_exp)),
            *_config(run),
            *_split(run, shape),
            *options.lm_args.split(),
        ],
        log_file,
        "stage 7",
        options.ngpu,
        run.machines,
    )
    stamps.finish(paths.lm_exp, 7, mark, data)


def perplexity(run: Run) -> None:
    """Stage 8: compute the perplexity of ``--lm_test_text``."""
    options, paths = run.options, run.paths
    stamps.require_model(paths.lm_exp, 7, options.inference_lm)
    text = _spaced(run, "lm_test_text")
    folder = paths.lm_exp / "perplexity_test"
    stamps.begin(folder, 8)
    call(
        "espnet2.bin.lm_calc_perplexity",
        [
            *("--ngpu", str(options.ngpu)),
            *("--data_path_and_name_and_type", f"{text},text,text"),
            *("--train_config", str(paths.lm_exp / "config.yaml")),
            *("--model_file", str(paths.lm_exp / options.inference_lm)),
            *("--output_dir", str(folder)),
        ],
        folder / "lm_calc_perplexity.log",
        "stage 8",
    )
    value = (folder / "ppl").read_text(encoding="utf-8").strip()
    log(f"stage 8: perplexity of {paths.lm_test_text}: {value}")
    stamps.finish(folder, 8, perplexity_fingerprint(run))


def stats_fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 6."""
    config = [run.options.lm_config] if run.options.lm_config else []
    mark = tokens_fingerprint(run).words(run.options.lm_args)
    return mark.files(_train_text(run), run.paths.lm_dev_text, *config).hexdigest()


def fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 7."""
    options = run.options
    mark = stamps.Fingerprint().words(stats_fingerprint(run), options.ngpu)
    mark.words(*run.machines.mark)
    mark.files(*named_files.in_options(options.lm_args))
    mark.files(*named_files.in_config(options.lm_config))
    return mark.words(options.lm_fold_length, options.num_splits_lm).hexdigest()


def perplexity_fingerprint(run: Run) -> str:
    """Return the fingerprint of the inputs of stage 8."""
    mark = stamps.Fingerprint().words(fingerprint(run), run.options.inference_lm)
    mark.files(run.paths.lm_exp / run.options.inference_lm)
    return mark.files(run.paths.lm_test_text).hexdigest()
