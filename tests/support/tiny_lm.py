"""Tiny language models of ESPnet: random ones, and one that has learnt a text."""

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml

CYCLE = "abcdefg"
TOKENS = ["<blank>", "<unk>", *"abcdefg", "<space>", "<sos/eos>"]
CONF: dict[str, dict[str, Any]] = {
    "transformer": {
        "pos_enc": "sinusoidal",
        "embed_unit": 8,
        "att_unit": 8,
        "head": 2,
        "unit": 16,
        "layer": 2,
    },
    "seq_rnn": {"unit": 8, "nlayers": 2, "rnn_type": "lstm"},
}


def encode(text: str) -> list[int]:
    """Token ids of characters of TOKENS; others are <unk>."""
    names = {" ": "<space>"}
    return [
        TOKENS.index(names.get(c, c)) if names.get(c, c) in TOKENS else 1 for c in text
    ]


def cycles(count: int = 60) -> list[list[int]]:
    """Sentences in which every unit but the first determines the next one."""
    return [
        encode("".join(CYCLE[(n + i) % 7] for i in range(12))) for n in range(count)
    ]


def configuration(kind: str = "transformer", tokens: Any = TOKENS) -> dict[str, Any]:
    """What lm_train writes into config.yaml, as far as a model is built from it."""
    return {
        "lm": kind,
        "lm_conf": CONF[kind],
        "model": "lm",
        "model_conf": {"ignore_id": 0},
        "token_list": list(tokens),
        "init": None,
    }


def build_tiny_lm(
    folder: Path, kind: str = "transformer", tokens: Any = TOKENS, seed: int = 0
) -> str:
    """Write an LM with random weights of some size, as lm_train leaves it."""
    model = _build(configuration(kind, tokens), seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return _save(folder, model, configuration(kind, tokens))


def train_tiny_lm(
    folder: Path, texts: list[list[int]], tokens: Any = TOKENS, steps: int = 60
) -> str:
    """Write an LM that has learnt sentences of equal length."""
    conf = configuration("seq_rnn", tokens)
    model = _build(conf, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    ids = torch.tensor(texts)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, torch.tensor([ids.size(1)] * len(ids)))[0].backward()
        optimizer.step()
    return _save(folder, model, conf)


def _build(conf: dict[str, Any], seed: int) -> Any:
    from espnet2.tasks.lm import LMTask

    torch.manual_seed(seed)
    return LMTask.build_model(argparse.Namespace(**conf))


def _save(folder: Path, model: Any, conf: dict[str, Any]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(conf), "utf-8")
    torch.save(model.state_dict(), folder / "valid.loss.ave.pth")
    return str(folder)
