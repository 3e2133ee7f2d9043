"""A trained transducer recogniser of ESPnet as the teacher of another."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.encoder.geometry import feature_rate, known_frame_times
from espnet_cif_hkd.errors import UserError, one_line
from espnet_cif_hkd.losses.rnnt_lattice import arc_scores
from espnet_cif_hkd.losses.rnnt_path import LatticePath, best_path_of_arcs
from espnet_cif_hkd.plugin.compat import TooShortUttError

# The first of these is taken from a folder; recipes decode with them in this order.
CHECKPOINTS = tuple(
    f"valid.{measure}.{which}.pth"
    for which in ("ave", "best")
    for measure in ("acc", "loss")
)
# Logits that exist at the same time while the best path is searched: 64 MiB.
_BLOCK_LOGITS = 1 << 24
_DIGEST = "token_list_digest"


def rows_of(padded: Tensor, utterances: Tensor, places: Tensor) -> Tensor:
    """Return rows (N, D) of a padded batch (B, L, D); other rows have no effect.

    Args:
        padded: (B, L, D); rows that are not chosen may be NaN.
        utterances, places: Index of each row, (N,) int64.
    """
    return padded.flatten(0, 1).index_select(0, utterances * padded.size(1) + places)


@dataclass(frozen=True)
class TaughtPath:
    """The teacher's best path through the lattice of each utterance.

    Attributes:
        path: Nodes of the paths, in frames of the teacher.
        projected: Frames and states as the joint network adds them, (B, T, J) and
            (B, U + 1, J).
        joint: The joint network.
    """

    path: LatticePath
    projected: tuple[Tensor, Tensor]
    joint: Any

    @torch.no_grad()
    def logits(self, utterances: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of N nodes, (N, V) float32.

        Args:
            utterances, frames, tokens: b, t and u of each node, (N,) int64.
        """
        rows = [
            rows_of(one, utterances, places)
            for one, places in zip(self.projected, (frames, tokens), strict=True)
        ]
        with torch.autocast(rows[0].device.type, enabled=False):
            logits: Tensor = self.joint(*rows, no_projection=True)
        return logits


class TransducerTeacher:
    """A frozen transducer, opened at its first use.

    It is no module, so it is in no checkpoint of the student. It computes in float32,
    in evaluation mode: without dropout and SpecAugment.

    Args:
        place: Folder with the ``config.yaml`` and a checkpoint of a training, or a
            checkpoint beside its ``config.yaml``. Relative to the working directory.

    Attributes:
        checkpoint: File with the parameters.
        files: The checkpoint and its ``config.yaml``.
        config: The teacher's ESPnet configuration.

    Raises:
        UserError: A file is missing or unreadable, or the model is no transducer.
    """

    def __init__(self, place: object) -> None:
        if not isinstance(place, str) or not place:
            raise UserError(
                f"criterion_conf.teacher is {place!r}; name the folder of a trained "
                "transducer, such as exp/asr_transducer"
            )
        self.label = f"teacher {place}"
        path = Path(place).expanduser()
        self.checkpoint = path if path.is_file() else _checkpoint(path, self.label)
        self.files = self.checkpoint, self.checkpoint.with_name("config.yaml")
        self.config = _read(self.files[1], self.label)
        if self.config.get("decoder") != "transducer":
            raise UserError(
                f"{self.label}: its decoder is {self.config.get('decoder')!r}; this "
                "criterion needs a teacher with 'decoder: transducer'"
            )

    def check_tokens(self, token_list: Sequence[str]) -> None:
        """Check that teacher and student have the same tokens.

        Raises:
            UserError: They differ.
        """
        own = list(self.config.get("token_list") or ())
        other = list(token_list)
        if own == other:
            return
        pairs = zip(own, other, strict=False)
        place = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        difference = (
            f"it has {len(own)} tokens, the student {len(other)}"
            if place is None
            else f"token {place} is {own[place]!r}, the student's {other[place]!r}"
        )
        raise UserError(
            f"{self.label}: another token list: {difference}; train the student with "
            "the token list of the teacher"
        )

    @cached_property
    def model(self) -> Any:
        """The frozen model, on the CPU until it is used on another device.

        Raises:
            UserError: The parameters cannot be read or do not fit the configuration.
        """
        from espnet_cif_hkd.plugin.registration import register

        register()
        from espnet2.tasks.asr import ASRTask

        model_conf = self.config.get("model_conf") or {}
        kept = {name: model_conf[name] for name in ("sym_blank",) if name in model_conf}
        quiet = {"ctc_weight": 0.0, "report_cer": False, "report_wer": False}
        # ASRTask.get_default_config() would read the command line of this process.
        defaults = vars(ASRTask.get_parser().parse_args([]))
        args = argparse.Namespace(
            **{
                **defaults,
                **self.config,
                **dict.fromkeys(("specaug", "init")),
                "model": "transducer",
                "model_conf": {**kept, **quiet},
            }
        )
        try:
            # The initial parameters must not change the student's random numbers.
            with torch.random.fork_rng(devices=[]):
                model = ASRTask.build_model(args)
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            state.setdefault(_DIGEST, model.state_dict()[_DIGEST])
            model.load_state_dict(state, strict=False)
        except Exception as error:
            reason = one_line(error, 200) or type(error).__name__
            raise UserError(
                f"{self.label}: cannot be opened from {self.checkpoint}: {reason}"
            ) from error
        logging.info("%s: opened %s", self.label, self.checkpoint)
        return model.requires_grad_(False).eval()

    @property
    def rate(self) -> int:
        """Sampling rate in Hz of the audio that the teacher reads.

        Raises:
            UserError: The teacher has no frontend, or one of unknown rate.
        """
        rate = feature_rate(self.model.frontend)
        if rate is None:
            raise UserError(
                f"{self.label}: the sampling rate of its frontend is unknown; use a "
                "teacher with 'frontend: default'"
            )
        return rate

    @property
    def times(self) -> FrameTimes:
        """Times of the teacher's encoder frames.

        Raises:
            UserError: They are unknown.
        """
        times = known_frame_times(self.model, self.rate)
        if times is None:
            raise UserError(
                f"{self.label}: the times of its encoder frames are unknown; use a "
                "teacher with 'frontend: default' and an encoder with a convolutional "
                "input layer"
            )
        return times

    @torch.no_grad()
    def best_path(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
    ) -> TaughtPath:
        """Search the best path that emits the given texts.

        Args:
            speech: Samples (B, S), padded.
            speech_lengths: Samples of each utterance, (B,).
            text: Token ids (B, U) int64; padding may be any integer.
            text_lengths: Tokens of each utterance, (B,).

        Raises:
            UserError: An utterance is too short for the teacher's encoder.
        """
        model = self.model.to(speech.device)
        decoder, joint, blank = model.decoder, model.joint_network, model.blank_id
        padded = torch.arange(text.size(1), device=text.device) >= text_lengths[:, None]
        labels = text.masked_fill(padded, blank)
        decoder.set_device(speech.device)
        with torch.autocast(speech.device.type, enabled=False):
            try:
                hs_pad, hlens = model.encode(speech.float(), speech_lengths)
            except TooShortUttError as error:
                raise UserError(
                    f"{self.label}: an utterance is too short for its encoder ({error})"
                    "; remove such utterances, or use another teacher"
                ) from error
            frames = hs_pad[0] if isinstance(hs_pad, tuple) else hs_pad
            states = decoder(torch.nn.functional.pad(labels, (1, 0), value=blank))
            projected = joint.lin_enc(frames), joint.lin_dec(states)
            row = states.size(0) * states.size(1) * joint.lin_out.out_features
            arcs = [
                arc_scores(
                    joint(part[:, :, None], projected[1][:, None], no_projection=True),
                    labels,
                    blank,
                )
                for part in projected[0].split(max(1, _BLOCK_LOGITS // row), dim=1)
            ]
        path = best_path_of_arcs(torch.cat(arcs, dim=2), hlens.long(), text_lengths)
        return TaughtPath(path, projected, joint)


def _checkpoint(folder: Path, label: str) -> Path:
    """Return the checkpoint of a folder."""
    if not folder.is_dir():
        raise UserError(
            f"{label}: there is no such folder or file; train the teacher first, or "
            "correct criterion_conf.teacher"
        )
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.glob("*.pth") if path.stem != "checkpoint")
    if len(others) == 1:
        return others[0]
    raise UserError(
        f"{label}: the folder has "
        + (f"{len(others)} checkpoints" if others else "no checkpoint")
        + f" and none is called {' or '.join(CHECKPOINTS[:2])}; name one file, such as "
        f"{(others or [folder / CHECKPOINTS[0]])[0]}"
    )


def _read(path: Path, label: str) -> Mapping[str, Any]:
    """Return a configuration.

    Raises:
        UserError: It cannot be read.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise UserError(f"{label}: {path} cannot be read ({reason})") from error
    if not isinstance(config, Mapping):
        raise UserError(f"{label}: {path} is no configuration of ESPnet")
    return config
