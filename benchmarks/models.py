"""Recognisers for benchmarks: ours as shipped for AISHELL-1, and ESPnet's as peers.

ESPnet's own task builds all of them from
``egs2/aishell/asr_hkd/conf/train_asr_cif_hkd``, with random weights and as many
artificial units as AISHELL-1 has.

===============  ===================================================================
cif              the shipped model without distillation
cif_hkd          the same with HKD; needs the teacher's folder or a store
transformer      the same encoder, ESPnet's Transformer decoder of 2 blocks
conformer        ESPnet's conformer of 12 blocks, conv2d, and Transformer decoder of 2
                 blocks; its width gives it as many parameters as ``cif``
===============  ===================================================================
"""

import argparse
import copy
import functools
from pathlib import Path
from typing import Any

import torch
import yaml
from espnet2.tasks.asr import ASRTask

from espnet_cif_hkd.plugin import register

CONF = Path(__file__).parents[1] / "egs2/aishell/asr_hkd/conf"
UNITS = [chr(0x4E00 + n) for n in range(4230)]
TOKENS = ["<blank>", "<unk>", *UNITS, "<sos/eos>"]  # 4,233
NAMES = ("cif", "cif_hkd", "transformer", "conformer")
CTC_WEIGHT = 0.3  # of the peers: interpolated, ESPnet's usual one
# Times 4 heads; the nearest in parameters is taken.
_WIDTHS = range(232, 329, 8)
_SAME_COUNT = 0.02


def config(name: str, **criterion_conf: Any) -> dict[str, Any]:
    """The complete configuration of a model, as ESPnet writes it to ``config.yaml``.

    Args:
        name: One of ``NAMES``.
        criterion_conf: Options that replace those of ``cif_hkd``: ``teacher``,
            ``teacher_revision``, ``teacher_store``.
    """
    conf = _config(name)
    if name == "cif_hkd":
        conf["model_conf"]["criterion_conf"].update(criterion_conf)
    elif name == "conformer":
        conf["encoder_conf"]["output_size"] = conformer_width()
    return conf


def _config(name: str) -> dict[str, Any]:
    if name not in NAMES:
        raise ValueError(f"{name!r} is none of {NAMES}")
    register()
    conf: dict[str, Any] = copy.deepcopy(ASRTask.get_default_config())
    conf.update(yaml.safe_load((CONF / "train_asr_cif_hkd.yaml").read_text("utf-8")))
    conf.update(token_list=TOKENS, token_type="char", init=None, input_size=None)
    if name == "cif":
        del conf["model_conf"]["criterion"], conf["model_conf"]["criterion_conf"]
    if name in ("transformer", "conformer"):
        del conf["decoder_conf"]["predictor_conf"]
        conf.update(decoder="transformer", model="espnet")
        conf["model_conf"] = {"ctc_weight": CTC_WEIGHT, "lsm_weight": 0.1}
    if name == "conformer":
        conf["encoder"] = "conformer"
        conf["encoder_conf"] = {
            "attention_heads": 4,
            "linear_units": 2048,
            "num_blocks": 12,
            "input_layer": "conv2d",
            "macaron_style": True,
            "rel_pos_type": "latest",
            "pos_enc_layer_type": "rel_pos",
            "selfattention_layer_type": "rel_selfattn",
            "activation_type": "swish",
            "use_cnn_module": True,
            "cnn_module_kernel": 15,
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1,
        }
    return conf


def build(name: str, **criterion_conf: Any) -> Any:
    """A model on the CPU, its weights from seed 0; arguments as of :func:`config`."""
    return _build(config(name, **criterion_conf))


def _build(conf: dict[str, Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ASRTask.build_model(argparse.Namespace(**conf))


def parameters(model: torch.nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@functools.cache
def conformer_width() -> int:
    """The width of ``conformer`` that gives it as many parameters as ``cif``.

    Raises:
        RuntimeError: If none is within 2 %.
    """
    with torch.device("meta"):
        wanted = parameters(_build(_config("cif")))
        counts = {}
        for width in _WIDTHS:
            conf = _config("conformer")
            conf["encoder_conf"]["output_size"] = width
            counts[width] = parameters(_build(conf))
    nearest = min(counts, key=lambda width: abs(counts[width] - wanted))
    if abs(counts[nearest] / wanted - 1) > _SAME_COUNT:
        raise RuntimeError(f"no width gives {wanted} parameters within 2 %: {counts}")
    return nearest


def write_experiment(
    name: str, folder: Path, **criterion_conf: Any
) -> tuple[Path, Path]:
    """Write the files of a training, for ``Speech2Text`` and ``asr_inference``.

    Args:
        name: One of ``NAMES``.
        folder: Created if it does not exist.
        criterion_conf: As of :func:`config`.

    Returns:
        ``config.yaml`` and the checkpoint with random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    conf = config(name, **criterion_conf)
    training, checkpoint = folder / "config.yaml", folder / "random.pth"
    torch.save(_build(conf).state_dict(), checkpoint)
    training.write_text(yaml.safe_dump(conf, allow_unicode=True), "utf-8")
    return training, checkpoint


def write_bert(folder: Path, tiny: bool = False) -> str:
    """Write a BERT of bert-base's size with random weights that reads ``UNITS``.

    Args:
        folder: Target, about 350 MB.
        tiny: Two layers of 32 dimensions instead.

    Returns:
        The value for ``teacher``; its ``teacher_dim`` is 768, or 32.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {piece: n for n, piece in enumerate([*special, *UNITS])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()  # splits Chinese characters
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    names = ("unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
    pieces = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        **dict(zip(names, pieces, strict=True)),
    ).save_pretrained(folder)
    size = (
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        }
        if tiny
        else {}  # BertConfig's defaults are bert-base's
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bert = BertModel(BertConfig(vocab_size=len(vocab), **size))
    bert.save_pretrained(folder, safe_serialization=True)
    return str(folder)


if __name__ == "__main__":
    print(f"conformer: width {conformer_width()}")
    for model_name in ("cif", "transformer", "conformer"):
        print(f"{model_name}: {parameters(build(model_name)):,} parameters")
