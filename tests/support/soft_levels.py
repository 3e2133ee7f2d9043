"""Levels of ``soft_labels`` with a language model that is a table."""

import os

import numpy as np
import torch
from tiny_model import TOKENS

from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.lm.labels import LMTeacher
from espnet_cif_hkd.teachers.lm.registry import lm_choices

UNIT = ["<blank>", "<unk>", *"HGFEDCBA", "<space>", "<sos/eos>"]


class TableLM(LMTeacher):
    """Random logits for each pair of preceding and current place; ``table`` in YAML.

    Unlike the output of a real model they depend on no other unit of the sentence.
    """

    kind = "table"
    is_control = True  # its perplexity is not checked

    def __init__(self, token_list, conf):
        super().__init__("table", token_list, conf)
        size = len(token_list)
        generator = torch.Generator().manual_seed(5)
        self.table = 3 * torch.randn(size, size, generator=generator)

    @classmethod
    def from_conf(cls, conf, token_list):
        return cls(token_list, conf)

    def open(self):
        return self

    def logits(self, items, device):
        before = [unit for item in items for unit in (0, *item)[: len(item)]]
        rows = np.arange(len(before))
        if len(rows):
            yield rows, self.table[on_device(np.array(before), torch.device("cpu"))]

    def fingerprint(self, cache=None):
        return "table"


lm_choices.classes["table"] = TableLM


def unit_file(folder, tokens=UNIT):
    """A token list of characters, in another order than the recogniser's."""
    path = folder / "unit_tokens.txt"
    # Ranks of one test share the folder: none may read what another has half written.
    part = folder / f"unit_tokens.{os.getpid()}"
    part.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return str(part.replace(path))


def chars(folder, tap="hs_pad", **options):
    """Options of a level of characters."""
    return {
        "tap": tap,
        "unit": "char",
        "unit_token_list": unit_file(folder),
        "lm_type": "table",
        "top_k": 4,
        **options,
    }


def criteria(levels, **options):
    """``model_conf`` with one criterion, called ``lm``."""
    return {"criteria": {"lm": {"type": "soft_labels", "levels": levels, **options}}}


def to_unit(ids, tokens=TOKENS, unit=UNIT):
    """Units of a text of the recogniser's tokens."""
    return [unit.index(tokens[i]) for i in ids]


def texts_of(batch):
    """Token ids of each utterance of a batch."""
    pairs = zip(batch["text"], batch["text_lengths"], strict=True)
    return [row[:n].tolist() for row, n in pairs]


def spans_of(units, seconds, seed=0):
    """Spans of units in random places, with pauses; (N, 2)."""
    generator = np.random.default_rng(seed)
    edges = np.sort(generator.uniform(0, seconds, 2 * len(units))).round(3)
    return edges.reshape(-1, 2)


def write_ctm(path, aligned, tokens=UNIT):
    """Write alignments; ``aligned``: name -> (unit ids, spans)."""
    lines = [
        f"{name} 1 {start:.4f} {end - start:.4f} {tokens[unit]}\n"
        for name, (units, spans) in aligned.items()
        for unit, (start, end) in zip(units, spans, strict=True)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)
