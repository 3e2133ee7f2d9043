"""A language model that ESPnet's ``lm_train`` has trained."""

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.io.device import on_device
from espnet_cif_hkd.io.torch_file import is_complete
from espnet_cif_hkd.teachers.base import Tokens
from espnet_cif_hkd.teachers.content import content_hash
from espnet_cif_hkd.teachers.lm.batches import batches, run_units
from espnet_cif_hkd.teachers.lm.labels import LMTeacher, lm_name, own_options

CONFIG = "config.yaml"
WEIGHTS = ("valid.loss.ave.pth", "valid.loss.best.pth")
MODELS = ("transformer", "seq_rnn")
_MADE_OF = ("lm", "lm_conf", "model", "model_conf")


class ESPnetLM(LMTeacher):
    """A causal LM of ESPnet: label i is predicted from the units before i.

    Args:
        name: Folder of the LM with ``config.yaml`` and ``valid.loss.ave.pth`` or
            ``valid.loss.best.pth``; or a ``.pth`` file beside its ``config.yaml``.
        token_list: Tokens of the unit, which must be those of the LM.
        conf: See :class:`LMTeacher`.
    """

    kind = "espnet"

    def __init__(self, name: str, token_list: Sequence[str], conf: Mapping[str, Any]):
        super().__init__(name, token_list, conf)
        self._opened: Any = None

    @classmethod
    def from_conf(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> "ESPnetLM":
        """See :class:`LMTeacher`."""
        own_options(conf, cls.kind)
        name = lm_name(conf, "a folder of ESPnet's lm_train, such as exp/lm_phone")
        return cls(name, token_list, conf)

    def check(self) -> None:
        """Compare the token list; the weights are not read. See :class:`LMTeacher`."""
        config = self._config()
        _check_tokens(self.name, config.get("token_list") or [], self.token_list)
        if not is_complete(self._weights()):
            raise UserError(
                f"lm {self._weights()}: the file is cut off; copy it again, or train "
                "the LM again"
            )

    def open(self) -> Any:
        """Load the LM, unless it is loaded; return ESPnet's ``AbsLM``.

        Raises:
            UserError: A file is missing or damaged, or the tokens are others.
        """
        if self._opened is None:
            self.check()
            path = self._weights()
            from espnet2.tasks.lm import LMTask

            try:
                with torch.random.fork_rng(devices=[]):  # of the initial weights
                    model = LMTask.build_model(argparse.Namespace(**self._config()))
                state = torch.load(path, map_location="cpu", weights_only=True)
                model.load_state_dict(state)
            # Readers of damaged files raise errors of many types.
            except Exception as e:
                reason = one_line(e, 200)
                raise UserError(
                    f"lm {path}: cannot be loaded with the {CONFIG} beside it "
                    f"({type(e).__name__}: {reason}); correct lm, or train the LM again"
                ) from e
            self._opened = model.lm.requires_grad_(False).eval()
        return self._opened

    def logits(
        self, items: Sequence[Tokens], device: torch.device
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """See :class:`LMTeacher`."""
        model = self.open().to(device)
        sos = len(self.token_list) - 1
        for batch in batches(items, run_units(device)):
            # <sos> and all units but the last one. What follows a unit, such as
            # padding, has no influence: both models are causal.
            inputs = np.roll(batch.ids, 1, axis=1)
            inputs[:, 0] = sos
            output, _ = model(on_device(inputs, device), None)  # (B, W, V)
            yield batch.padded_rows, output.flatten(0, 1)

    def fingerprint(self, cache: Path | None = None) -> str | None:
        """See :class:`AbsTeacher`; hashes the weights and the options of the model."""
        try:
            path, config = self._weights(), self._config()
        except UserError:
            return None
        options = {name: config.get(name) for name in _MADE_OF}
        data = f"{content_hash([path], cache)} {json.dumps(options, sort_keys=True)}"
        return hashlib.blake2b(data.encode(), digest_size=16).hexdigest()

    def _weights(self) -> Path:
        path = Path(self.name)
        if path.suffix == ".pth" and path.is_file():
            return path
        for name in WEIGHTS:
            if (path / name).is_file():
                return path / name
        raise UserError(
            f"lm {self.name}: holds neither {' nor '.join(WEIGHTS)}; set lm to the "
            "folder of a finished lm_train, or to one of its .pth files"
        )

    def _config(self) -> dict[str, Any]:
        import yaml

        path = self._weights().parent / CONFIG
        try:
            # It has the token list; the loader in C is ten times as fast.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            config = yaml.load(path.read_text(encoding="utf-8"), loader)
        except (OSError, ValueError, yaml.YAMLError) as e:
            reason = one_line(e, 200)
            raise UserError(
                f"lm {path}: cannot be read ({reason}); set lm to the folder of an "
                "lm_train"
            ) from e
        if not isinstance(config, dict) or config.get("lm") not in MODELS:
            kind = config.get("lm") if isinstance(config, dict) else None
            raise UserError(
                f"lm {path}: describes the model {kind!r}, not one of ESPnet's own "
                f"LMs ({', '.join(MODELS)}); train one of these, or use lm_type: "
                "hf_causal for a Hugging Face model"
            )
        if config.get("model", "lm") != "lm":
            raise UserError(
                f"lm {path}: model {config['model']} has other inputs than ESPnet's "
                "model: lm; train the LM with model: lm"
            )
        return config


def _check_tokens(name: str, own: Sequence[str], wanted: Sequence[str]) -> None:
    """Check that the tokens of an LM are those of the unit.

    Raises:
        UserError: They differ; the message has the first difference.
    """
    for number, (mine, theirs) in enumerate(zip_longest(own, wanted), 1):
        if mine != theirs:
            shown = ["nothing" if t is None else repr(t) for t in (mine, theirs)]
            raise UserError(
                f"lm {name}: its token list ({len(own)} tokens) is not that of the "
                f"unit ({len(wanted)} tokens): token {number} is {shown[0]} in the LM "
                f"and {shown[1]} in the unit; train an LM with the unit's token list"
            )
