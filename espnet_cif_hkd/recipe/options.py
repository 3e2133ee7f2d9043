"""The options of ``asr.sh`` that the engine knows, with the same defaults.

The syntax is that of Kaldi's shell scripts: ``--name value``, booleans ``true`` or
``false``; ``-`` and ``_`` in names are equivalent.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.machines import machines

LAST_STAGE = 15
STOCK_ENGINE = "set ESPNET_ROOT to an ESPnet checkout to run it with ESPnet's asr.sh"


@dataclass
class Options:
    """Options of a run; field names and defaults are those of ``asr.sh``."""

    # General
    stage: int = 1
    stop_stage: int = 10000
    skip_stages: str = ""
    skip_data_prep: bool = False
    skip_train: bool = False
    skip_eval: bool = False
    skip_packing: bool = True
    skip_upload_hf: bool = True
    eval_valid_set: bool = False
    ngpu: int = 1
    num_nodes: int = 1
    nj: int = 32
    inference_nj: int = 32
    gpu_inference: bool = False
    dumpdir: str = "dump"
    expdir: str = "exp"
    # Data
    local_data_opts: str = ""
    post_process_local_data_opts: str = ""
    speed_perturb_factors: str = ""
    feats_type: str = "raw"
    audio_format: str = "flac"
    fs: str = "16k"
    min_wav_duration: float = 0.1
    max_wav_duration: float = 20
    # Tokens
    token_type: str = "bpe"
    nbpe: int = 30
    bpemode: str = "unigram"
    oov: str = "<unk>"
    blank: str = "<blank>"
    sos_eos: str = "<sos/eos>"
    bpe_input_sentence_size: int = 100000000
    bpe_nlsyms: str = ""
    bpe_char_cover: float = 1.0
    hugging_face_model_name_or_path: str = ""
    # Language model
    use_lm: bool = True
    lm_tag: str = ""
    lm_exp: str = ""
    lm_stats_dir: str = ""
    lm_config: str = ""
    lm_args: str = ""
    num_splits_lm: int = 1
    # Recogniser
    asr_tag: str = ""
    asr_exp: str = ""
    asr_stats_dir: str = ""
    asr_config: str = ""
    asr_args: str = ""
    pretrained_model: str = ""
    ignore_init_mismatch: str = "false"
    feats_normalize: str = "global_mvn"
    num_splits_asr: int = 1
    # Decoding and scoring
    use_streaming: bool = False
    batch_size: int = 1
    inference_tag: str = ""
    inference_config: str = ""
    inference_args: str = ""
    inference_lm: str = "valid.loss.ave.pth"
    inference_asr_model: str = "valid.acc.ave.pth"
    score_opts: str = ""
    local_score_opts: str = ""
    # Sharing
    hf_repo: str = ""
    # Corpus
    train_set: str = ""
    valid_set: str = ""
    test_sets: str = ""
    bpe_train_text: str = ""
    lm_train_text: str = ""
    lm_dev_text: str = ""
    lm_test_text: str = ""
    nlsyms_txt: str = "none"
    cleaner: str = "none"
    hyp_cleaner: str = "none"
    g2p: str = "none"
    lang: str = "noinfo"
    asr_speech_fold_length: int = 800
    asr_text_fold_length: int = 150
    lm_fold_length: int = 150
    # Of this engine only
    reuse: bool = False
    drop_too_long: bool = False
    drop_empty_text: bool = False
    channel: str = ""
    hf_private: bool = False
    user_module: str = ""
    hosts: str = ""


ENGINE_ONLY = (
    *("reuse", "drop_too_long", "drop_empty_text", "channel", "hf_private"),
    *("user_module", "hosts"),
)

# Descriptions in --help.
NOTES = {
    "stop_stage": "the last stage",
    "ngpu": "GPUs for training; several are one process each",
    "num_nodes": "machines for training, in a job of Slurm",
    "hosts": "machines for training by SSH, with commas between them",
    "nj": "largest number of processes or threads",
    "gpu_inference": "stage 12 in one process on one GPU",
    "asr_args": "options of espnet2.bin.asr_train, after those of --asr_config",
    "reuse": "keep what stages made of the same inputs",
    "drop_too_long": "leave out utterances with more tokens than frames",
    "drop_empty_text": "leave out utterances without a transcript",
}

# Options of asr.sh that the engine does not support, with the only accepted value.
LEFT_TO_STOCK = {
    "python": "python3",
    "use_lightning": "false",
    "auxiliary_data_tags": "",
    "multi_columns_input_wav_scp": "false",
    "multi_columns_output_wav_scp": "false",
    "use_ngram": "false",
    "ngram_exp": "",
    "ngram_num": "3",
    "inference_ngram": "3gram.bin",
    "use_word_lm": "false",
    "word_vocab_size": "10000",
    "use_prompt": "false",
    "use_lang_prompt": "false",
    "use_nlp_prompt": "false",
    "asr_task": "asr",
    "num_ref": "1",
    "num_inf": "1",
    "sot_asr": "false",
    "use_k2": "false",
    "k2_ctc_decoding": "true",
    "use_nbest_rescoring": "true",
    "num_paths": "1000",
    "nll_batch_size": "100",
    "k2_config": "./conf/decode_asr_transformer_with_k2.yaml",
    "use_maskctc": "false",
    "download_model": "",
}

# Unsupported values of supported options.
SUPPORTED_VALUES = {
    "feats_type": ("raw",),
    "token_type": ("char", "word", "bpe", "hugging_face"),
    "audio_format": ("flac", "wav"),
    "bpemode": ("unigram", "bpe", "char", "word"),
    "score_opts": ("", "-s"),
}


def _convert(name: str, kind: object, value: str) -> object:
    if kind in (bool, "bool"):
        if value not in ("true", "false"):
            raise UserError(f"--{name} takes true or false, not {value!r}")
        return value == "true"
    converter = {int: int, float: float}.get(kind, str)  # type: ignore[call-overload]
    try:
        return converter(value)
    except ValueError as error:
        raise UserError(
            f"--{name} takes a number ({converter.__name__}), not {value!r}"
        ) from error


def _unknown(name: str) -> UserError:
    known = [field.name for field in dataclasses.fields(Options)]
    close = difflib.get_close_matches(name, [*known, *LEFT_TO_STOCK], 1, 0.5)
    hint = f": did you mean --{close[0]}?" if close else ": --help lists the options"
    return UserError(f"unknown option --{name}{hint}")


def parse(arguments: Sequence[str]) -> Options:
    """Parse a command line of ``asr.sh``.

    Raises:
        UserError: an option is unknown, a value is missing or wrong, a stage does not
            exist, or only ESPnet's ``asr.sh`` supports the option.
    """
    options = Options()
    kinds = {field.name: field.type for field in dataclasses.fields(Options)}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(
                f"no positional arguments are taken, got {word!r}: "
                "quote a value that contains spaces"
            )
        if "=" in word:
            raise UserError(f"write {word.replace('=', ' ', 1)} without '='")
        name = word[2:].replace("-", "_")
        if name == "config":
            raise UserError(
                "--config, Kaldi's file of options, is not in the pip-only engine: "
                f"give its options on the command line, or {STOCK_ENGINE}"
            )
        if name not in kinds and name not in LEFT_TO_STOCK:
            raise _unknown(name)
        if not rest:
            raise UserError(f"--{name} needs a value")
        value = rest.pop(0)
        if name in LEFT_TO_STOCK:
            if value != LEFT_TO_STOCK[name]:
                raise UserError(
                    f"--{name} {value} is not in the pip-only engine: {STOCK_ENGINE}"
                )
            continue
        setattr(options, name, _convert(name, kinds[name], value))
    check(options)
    return options


def check(options: Options) -> None:
    """Check stages and combinations of options; see :func:`parse`."""
    for name, values in SUPPORTED_VALUES.items():
        value = getattr(options, name)
        if value not in values:
            allowed = ", ".join(repr(item) for item in values)
            raise UserError(
                f"--{name} {value} is not in the pip-only engine ({allowed}): "
                f"{STOCK_ENGINE}"
            )
    if options.stage > LAST_STAGE:
        raise UserError(
            f"--stage {options.stage} does not exist: stages are 1 to {LAST_STAGE}"
        )
    if options.stop_stage < options.stage:
        raise UserError(
            f"--stop_stage {options.stop_stage} comes before --stage {options.stage}: "
            "nothing would run"
        )
    for word in options.skip_stages.split():
        if not word.isdigit() or not 1 <= int(word) <= LAST_STAGE:
            raise UserError(
                f"--skip_stages {word!r} does not exist: stages are 1 to {LAST_STAGE}"
            )
    if options.num_splits_asr < 1 or options.num_splits_lm < 1:
        raise UserError("--num_splits_asr and --num_splits_lm must be 1 or more")
    if options.channel not in ("", "mean") and not options.channel.isdecimal():
        raise UserError(
            f"--channel {options.channel}: write the number of a channel, from 0, or "
            "mean"
        )
    for name in ("nj", "inference_nj", "batch_size", "nbpe"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be 1 or more")
    machines(options.num_nodes, options.hosts)
    _check_hugging_face(options)
    _check_sets(options)


def _check_hugging_face(options: Options) -> None:
    if options.token_type != "hugging_face":
        return
    if not options.hugging_face_model_name_or_path:
        raise UserError(
            "--token_type hugging_face needs --hugging_face_model_name_or_path: the "
            "folder or hub name of a tokenizer"
        )
    if options.use_lm:
        raise UserError(
            "--token_type hugging_face: ESPnet trains no language model on such "
            "tokens: give --use_lm false"
        )


def _check_sets(options: Options) -> None:
    if not options.skip_train:
        for name in ("train_set", "valid_set"):
            if not getattr(options, name):
                raise UserError(f"--{name} is required")
    if options.eval_valid_set:
        if not options.valid_set:
            raise UserError("--valid_set is required with --eval_valid_set true")
    elif not options.test_sets.split():
        raise UserError("--test_sets is required")
    if options.train_set and options.train_set == options.valid_set:
        raise UserError(
            f"--train_set and --valid_set are both {options.train_set}: "
            "they must be different"
        )
    kept: list[str] = []
    for name in options.test_sets.split():
        if name == options.train_set:
            raise UserError(f"--test_sets contains the training set {name}: remove it")
        if name == options.valid_set:
            options.eval_valid_set = True
        elif name not in kept:
            kept.append(name)
    options.test_sets = " ".join(kept)


def help_text() -> str:
    """Return the options with their defaults, one per line."""
    lines = [
        "Usage: python3 -m espnet_cif_hkd.recipe --train_set NAME --valid_set NAME "
        '--test_sets "NAMES" [options]',
        "       python3 -m espnet_cif_hkd.recipe init RECIPE DIR",
        "",
        "Runs the stages of ESPnet's asr.sh on pip packages alone. Options, with "
        "asr.sh's names and defaults:",
        "",
    ]
    for field in dataclasses.fields(Options):
        default = field.default
        if isinstance(default, bool):
            default = str(default).lower()
        note = NOTES.get(field.name, "")
        if field.name in ENGINE_ONLY:
            note += " (this engine only)"
        lines.append(f'  --{field.name:32} default "{default}"  {note}'.rstrip())
    lines += ["", "Left to asr.sh (set ESPNET_ROOT): " + ", ".join(LEFT_TO_STOCK)]
    return "\n".join(lines)
