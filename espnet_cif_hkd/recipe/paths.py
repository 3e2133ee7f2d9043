"""Folders, files and tags of ``asr.sh``, derived from the options."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.options import Options

_LONGEST_NAME = 255  # bytes, of a file in all common file systems
_SIZES = {"": 1, "k": 1000, "m": 1000**2}


def sampling_rate(text: str) -> int:
    """Convert ``16k``, ``8000`` or ``11.025k`` to Hz.

    Raises:
        UserError: the text is not a positive rate.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmM]?)(?:Hz|hz)?", text.strip())
    if match is None:
        raise UserError(f"--fs {text} is not a sampling rate: write 16k or 16000")
    rate = round(float(match[1]) * _SIZES[match[2].lower()])
    if rate <= 0:
        raise UserError(f"--fs {text} is not a sampling rate: write 16k or 16000")
    return rate


def _without_suffix(path: str, suffix: str) -> str:
    name = os.path.basename(path.rstrip("/"))
    return name[: -len(suffix)] if name.endswith(suffix) and name != suffix else name


def _arguments_tag(arguments: str, removed: str) -> str:
    return re.sub(f"[{re.escape(removed)}]", "", arguments.replace("--", "_"))


def _model_tag(name: str) -> str:
    return re.sub(r"\.[^.]*$", "", name.replace("/", "_"))


def _lang_and_tokens(options: Options, separator: str = "_") -> str:
    tag = "" if options.lang == "noinfo" else f"{separator}{options.lang}"
    tag += f"{separator}{options.token_type}"
    return tag + (str(options.nbpe) if options.token_type == "bpe" else "")


def _tokenizer_tag(options: Options) -> str:
    if options.token_type != "hugging_face":
        return ""
    # asr.sh replaces only the first slash.
    return "_" + options.hugging_face_model_name_or_path.replace("/", "-", 1)


@dataclass
class Paths:
    """All paths of a run; folders are relative to the folder of the recipe.

    ``bpemodel`` is the option of ESPnet's commands: a sentencepiece model, the folder
    or hub name of a Hugging Face tokenizer, or ``none``.
    """

    data_feats: Path
    train_set: str
    source_train_set: str
    bpe_train_text: str
    lm_train_text: str
    lm_dev_text: str
    lm_test_text: str
    token_listdir: Path
    bpedir: Path
    bpemodel: str
    token_list: Path
    asr_stats_dir: Path
    lm_stats_dir: Path
    asr_exp: Path
    lm_exp: Path
    inference_tag: str

    @property
    def train_dir(self) -> Path:
        return self.data_feats / self.train_set

    def inference_dir(self) -> Path:
        return self.asr_exp / self.inference_tag


def asr_tag(options: Options) -> str:
    """Return the suffix of the recogniser's experiment folder."""
    if options.asr_tag:
        return options.asr_tag
    config = options.asr_config
    tag = _without_suffix(config, ".yaml") if config else "train"
    tag += f"_{options.feats_type}{_lang_and_tokens(options)}{_tokenizer_tag(options)}"
    if options.asr_args:
        tag += _arguments_tag(options.asr_args, " |=/")
    return tag + ("_sp" if options.speed_perturb_factors else "")


def lm_tag(options: Options) -> str:
    """Return the suffix of the language model's experiment folder."""
    if options.lm_tag:
        return options.lm_tag
    tag = _without_suffix(options.lm_config, ".yaml") if options.lm_config else "train"
    tag += _lang_and_tokens(options)
    return tag + (_arguments_tag(options.lm_args, " |=/") if options.lm_args else "")


def inference_tag(options: Options, lm_exp: Path) -> str:
    """Return the name of the decoding folder in the experiment folder."""
    if options.inference_tag:
        return options.inference_tag
    config = options.inference_config
    tag = _without_suffix(config, ".yaml") if config else "inference"
    if options.inference_args:
        tag += _arguments_tag(options.inference_args, " |=")
    if options.use_lm:
        tag += f"_lm_{lm_exp.name}_{_model_tag(options.inference_lm)}"
    return f"{tag}_asr_model_{_model_tag(options.inference_asr_model)}"


def _check_length(option: str, name: str) -> None:
    length = len(name.encode())
    if length > _LONGEST_NAME:
        raise UserError(
            f"the folder of this run would have a name of {length} bytes, made from "
            f"all arguments, but {_LONGEST_NAME} are possible: give a short name with "
            f"--{option}"
        )


def derive(options: Options) -> Paths:
    """Return all folders and files of a run, with the names of ``asr.sh``.

    Raises:
        UserError: a name that is made from arguments is too long.
    """
    feats = Path(options.dumpdir) / options.feats_type
    source = options.train_set
    train = f"{source}_sp" if options.speed_perturb_factors else source
    # The default of asr.sh. With speed perturbation stage 3 does not write it, but
    # dump/raw/org/TRAIN_sp, which has each sentence several times.
    train_text = f"{feats}/org/{source}/text"
    if options.speed_perturb_factors:
        train_text = f"data/{source}/text"
    valid_text = f"{feats}/org/{options.valid_set}/text"
    tests = options.test_sets.split()
    test_text = f"{feats}/{tests[0]}/text" if tests else valid_text

    lang = "" if options.lang == "noinfo" else f"{options.lang}_"
    token_listdir = Path("data") / f"{lang}token_list"
    bpedir = token_listdir / f"bpe_{options.bpemode}{options.nbpe}"
    token_list = {
        "bpe": bpedir / "tokens.txt",
        "char": token_listdir / "char" / "tokens.txt",
        "word": token_listdir / "word" / "tokens.txt",
        "hugging_face": token_listdir
        / f"hugging_face{_tokenizer_tag(options)}"
        / "tokens.txt",
    }[options.token_type]

    exp = Path(options.expdir)
    tokens = _lang_and_tokens(options)
    speed = "_sp" if options.speed_perturb_factors else ""
    lm_exp = Path(options.lm_exp) if options.lm_exp else exp / f"lm_{lm_tag(options)}"
    asr_stats = (
        f"asr_stats_{options.feats_type}{tokens}{_tokenizer_tag(options)}{speed}"
    )
    bpemodel = {
        "bpe": str(bpedir / "bpe.model"),
        "hugging_face": options.hugging_face_model_name_or_path,
    }.get(options.token_type, "none")
    asr_exp = Path(options.asr_exp or exp / f"asr_{asr_tag(options)}")
    decoding = inference_tag(options, lm_exp)
    _check_length("asr_tag", asr_exp.name)
    if options.use_lm:  # the name of decoding has that of the language model
        _check_length("lm_tag", lm_exp.name)
    _check_length("inference_tag", decoding)
    return Paths(
        data_feats=feats,
        train_set=train,
        source_train_set=source,
        bpe_train_text=options.bpe_train_text or train_text,
        lm_train_text=options.lm_train_text or train_text,
        lm_dev_text=options.lm_dev_text or valid_text,
        lm_test_text=options.lm_test_text or test_text,
        token_listdir=token_listdir,
        bpedir=bpedir,
        bpemodel=bpemodel,
        token_list=token_list,
        asr_stats_dir=Path(options.asr_stats_dir or exp / asr_stats),
        lm_stats_dir=Path(options.lm_stats_dir or exp / f"lm_stats{tokens}"),
        asr_exp=asr_exp,
        lm_exp=lm_exp,
        inference_tag=decoding,
    )
