"""Causal and masked language models of Hugging Face, with the tokens of a unit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.content import content_hash
from espnet_cif_hkd.teachers.lm.batches import (
    Piece,
    batches,
    grouped,
    pieces,
    run_units,
)
from espnet_cif_hkd.teachers.lm.hf_tokens import LMTokens, UnitTokens
from espnet_cif_hkd.teachers.lm.labels import (
    LMTeacher,
    flat_ids,
    lm_name,
    our_names,
    own_options,
)
from espnet_cif_hkd.teachers.source import local_folder
from espnet_cif_hkd.teachers.text import plm
from espnet_cif_hkd.teachers.text.files import content_files, incomplete
from espnet_cif_hkd.teachers.text.probe import max_length

_TOLERANCE = 1e-3  # of logits; rounding of float32 causes about 1e-5


class HuggingFaceLM(LMTeacher):
    """What causal and masked LMs have in common.

    Args:
        name: A folder, a hub name, or ``pkg://DISTRIBUTION/FOLDER``.
        token_list: Tokens of the unit. Each label needs a token of its own in the LM,
            see :mod:`espnet_cif_hkd.teachers.lm.hf_tokens`; the probabilities are
            those among these tokens.
        conf: ``lm_revision`` is required with a hub name; see also :class:`LMTeacher`.
        token_type: Token type of the unit; None infers it.
        case: ``auto``, ``keep`` or ``lower``: case of the units for the LM.
    """

    # Class of transformers; special tokens before a sentence, and for <unk>, the best
    # first.
    auto_class = ""
    openings: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        token_list: Sequence[str],
        conf: Mapping[str, Any],
        token_type: str | None = None,
        case: str = "auto",
    ):
        super().__init__(name, token_list, conf)
        self.token_type, self.case = token_type, case
        self._config = plm.TeacherConfig(name, 1, conf.get("lm_revision"))
        self._opened: Any = None
        self._tokens: tuple[Any, UnitTokens] | None = None

    @classmethod
    def from_conf(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> "HuggingFaceLM":
        """See :class:`LMTeacher`; ``lm_conf`` may have ``token_type`` and ``case``."""
        name = lm_name(conf, "a folder, a hub name or pkg://DISTRIBUTION/FOLDER")
        options = own_options(conf, cls.kind, "token_type", "case")
        return cls(name, token_list, conf, **options)

    def __getstate__(self) -> dict[str, Any]:
        """See :class:`LMTeacher`."""
        return {**super().__getstate__(), "_tokens": None}

    def check(self) -> None:
        """Open the tokenizer and compare the units. See :class:`LMTeacher`."""
        self.tokens()

    def tokens(self) -> tuple[Any, UnitTokens]:
        """Return the tokenizer and the LM's tokens of the units.

        Raises:
            UserError: The tokenizer cannot be opened, or a unit has no token.
        """
        if self._tokens is None:
            with our_names():
                plm.fixed_place(self._config)
                tokenizer = plm.open_tokenizer(self._config)
                self._tokens = tokenizer, self.unit_tokens(tokenizer)
        return self._tokens

    def unit_tokens(self, tokenizer: Any) -> UnitTokens:
        """Compare the tokens of the unit with those of the LM.

        Raises:
            UserError: They do not fit.
        """
        unknown = self._special(tokenizer, *self.unknowns)
        return LMTokens(
            *(self.name, tokenizer, self.token_list),
            *(self.token_type, self.case, unknown),
        )

    def open(self) -> Any:
        """Load the LM, unless it is loaded; return the Hugging Face model.

        Raises:
            UserError: A file is missing or damaged, or the LM is of another kind.
        """
        if self._opened is None:
            self.tokens()
            with our_names():
                self._opened = self._load()
            self._probe(self._opened)
        return self._opened

    def examine(self, items: Sequence[Tokens]) -> list[str]:
        """See :class:`LMTeacher`."""
        return self.tokens()[1].examine(items)

    def describe(self) -> dict[str, Any]:
        """See :class:`AbsTeacher`."""
        revision = self._config.revision
        return {**super().describe(), "revision": revision, "case": self.case}

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`AbsTeacher`."""
        folder = local_folder(self._config.name, self._config.revision)
        files = None if folder is None else content_files(folder)
        return None if files is None else content_hash(files, cache)

    def _load(self) -> Any:
        import transformers

        place = plm.fixed_place(self._config)
        folder = Path(place)
        safe = any(folder.glob("*.safetensors")) if folder.is_dir() else None
        try:
            model, report = getattr(transformers, self.auto_class).from_pretrained(
                place,
                revision=self._config.revision,
                trust_remote_code=False,
                use_safetensors=safe,
                output_loading_info=True,
                dtype=torch.float32,
            )
        # Readers of damaged files raise errors of many types.
        except Exception as e:
            raise plm.cannot_open(self._config, "weights", e) from e
        missing = sorted(key for key in report["missing_keys"] if "pooler." not in key)
        if missing:
            raise incomplete(self._config, missing)
        return model.requires_grad_(False).eval()

    def _probe(self, model: Any) -> None:
        """Check that the loaded model is of the right kind."""

    def _special(self, tokenizer: Any, *kinds: str) -> int:
        """Return the id of the first special token that the tokenizer has.

        Raises:
            UserError: It has none of them.
        """
        for kind in kinds:
            found = getattr(tokenizer, f"{kind}_token_id", None)
            if found is not None:
                return int(found)
        raise UserError(
            f"lm {self.name}: its tokenizer has no {' or '.join(kinds)} token; correct "
            "its tokenizer_config.json, or choose another LM"
        )

    def _columns(self, device: torch.device) -> Tensor:
        """Return the LM's token of each token of the unit, (V,)."""
        return on_device(self.tokens()[1].ids, device)


class CausalLM(HuggingFaceLM):
    """A causal LM: label i is predicted from the units before i.

    The input begins with the LM's bos token, or else its eos token. A sentence that is
    longer than the LM's input is read in windows, in which each unit has at least half
    of a window before it.
    """

    kind = "hf_causal"
    auto_class = "AutoModelForCausalLM"
    openings = ("bos", "eos", "cls", "sep")
    unknowns = ("unk", "bos", "eos")

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`."""
        model = self.open().to(device)
        tokenizer, tokens = self.tokens()
        first = self._special(tokenizer, *self.openings)
        limit = max_length(tokenizer, model)
        columns, lead = self._columns(device), limit - max(1, limit // 2)
        for batch in batches(items, run_units(device), limit, lead):
            inputs = np.roll(tokens.ids[batch.ids], 1, axis=1)
            inputs[:, 0] = first
            output = _run(model, inputs, batch.valid)  # (B, W, vocabulary)
            yield batch.rows, batch.take(output).index_select(1, columns)

    def _probe(self, model: Any) -> None:
        """Check that a token has no influence on the logits before it."""
        some = np.unique(self.tokens()[1].ids)[:3]
        ids = np.repeat(some[:1], 4)[None].repeat(2, 0)  # (2, 4)
        ids[1, 3] = some[-1]
        with torch.inference_mode():
            one, other = _run(model, ids, ids >= 0)[:, :3]
        if float((one - other).abs().max()) > _TOLERANCE * float(one.abs().max()):
            raise UserError(
                f"lm {self.name} ({type(model).__name__}): reads the units after the "
                "one that it predicts, so it is no causal LM; set lm_type: hf_masked"
            )


class MaskedLM(HuggingFaceLM):
    """A masked LM: label i is predicted from all other units, with i masked.

    Each unit costs one forward pass of its sentence; the passes of all sentences are
    batched. A sentence that is longer than the LM's input is read in windows.
    """

    kind = "hf_masked"
    auto_class = "AutoModelForMaskedLM"
    openings = ("cls", "bos")
    unknowns = ("unk", "mask")
    sample_units = 1000
    run_rows = 1 << 12

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`."""
        model = self.open().to(device)
        tokenizer, tokens = self.tokens()
        first = self._special(tokenizer, *self.openings)
        last = self._special(tokenizer, "sep", "eos")
        mask = self._special(tokenizer, "mask")
        limit = max_length(tokenizer, model) - 2
        columns = self._columns(device)
        found = pieces(items, limit, (limit - max(1, limit // 2)) // 2)
        for some in _masked(found, run_units(device)):
            lengths = np.array([len(found[n][0]) for n, _ in some])
            at = np.array([position for _, position in some]) + 1
            places = np.arange(lengths.max() + 2)
            flat = flat_ids([found[n][0] for n, _ in some])
            ids = np.full((len(some), len(places)), tokenizer.pad_token_id or 0)
            inside = (places > 0) & (places <= lengths[:, None])
            ids[inside] = tokens.ids[flat]
            ids[:, 0] = first
            row = np.arange(len(some))
            ids[row, lengths + 1] = last
            ids[row, at] = mask
            valid = places < lengths[:, None] + 2
            output = logits_at(model, ids, valid, row, at)
            rows = np.array([found[n][1] + i - found[n][2] for n, i in some])
            yield rows, output.index_select(1, columns)


def _masked(found: Sequence[Piece], budget: int) -> Iterator[list[tuple[int, int]]]:
    """Yield groups of copies to mask: number of a piece and the masked position."""
    widths = [len(ids) + 2 for ids, *_ in found]
    copies = [
        (n, i) for n, (_, _, begin, end) in enumerate(found) for i in range(begin, end)
    ]
    for group in grouped([widths[n] for n, _ in copies], budget):
        yield [copies[n] for n in group]


def _run(model: Any, ids: np.ndarray, valid: np.ndarray) -> Tensor:
    """Run an LM on padded tokens (B, W); return its logits (B, W, vocabulary)."""
    device = model.device
    mask = on_device(valid.astype(np.int64), device)
    return model(input_ids=on_device(ids, device), attention_mask=mask).logits


def logits_at(
    model: Any, ids: np.ndarray, valid: np.ndarray, rows: np.ndarray, at: np.ndarray
) -> Tensor:
    """Run an LM on padded tokens; its output layer computes some positions only.

    The output layer has the size of the vocabulary.

    Args:
        model: The LM.
        ids, valid: (B, W) tokens, and which places hold some.
        rows, at: (N,) the positions, ``at`` of ``rows``.

    Returns:
        Logits (N, vocabulary).
    """
    places = on_device(rows, model.device), on_device(at, model.device)

    def reduced(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output[0][places][:, None]  # of (B, W, C)
        return output

    base = model.base_model
    handle = None if base is model else base.register_forward_hook(reduced)
    try:
        logits = _run(model, ids, valid)
    finally:
        if handle is not None:
            handle.remove()
    if logits.size(1) > 1:  # the output layer has computed all positions
        return logits[places]
    return logits[:, 0]
