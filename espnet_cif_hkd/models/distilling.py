"""A mixin that adds criteria, and their taps, to an ESPnet model."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from espnet_cif_hkd.cif.times import FrameTimes
from espnet_cif_hkd.distill.choices import Configured, configured, naming
from espnet_cif_hkd.distill.criterion import AbsDistillCriterion, check_signature
from espnet_cif_hkd.distill.gradient_share import GradientShares
from espnet_cif_hkd.distill.schedule import CommonOptions, UpdateCount, count_updates
from espnet_cif_hkd.distill.taps import (
    Student,
    Taps,
    TokenLoss,
    layers_of,
    require_taps,
)
from espnet_cif_hkd.encoder.geometry import feature_rate, known_frame_times
from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.models.checkpoint import fitting, misfit_named
from espnet_cif_hkd.models.encoder_start import EncoderStart
from espnet_cif_hkd.models.layer_taps import (
    LayerOutputs,
    layer_count,
    tapped_layers,
)
from espnet_cif_hkd.models.own_features import mirrored, mirrored_reach
from espnet_cif_hkd.models.scaled_updates import ScaledUpdates

# Names that models log after their criteria.
_LATER = frozenset({"loss", "cer", "wer", "cer_free", "length_error"})


class DistillingMixin:
    """Adds criteria to an ESPnet model; comes before it in the list of base classes.

    Attributes:
        criterion: The criterion of ``model_conf.criterion``, or None. Its parameters
            are ``criterion.*`` in a checkpoint.
        criteria: The criteria of ``model_conf.criteria`` by name. Their parameters are
            ``criteria.NAME.*``.
        schedule: The number of optimizer updates, ``schedule.updates`` in a checkpoint;
            None if no loss has a schedule.
    """

    criterion: AbsDistillCriterion | None
    criteria: torch.nn.ModuleDict
    schedule: UpdateCount | None
    training: bool
    token_list: list[str]
    encoder: Any
    frontend: Any
    specaug: Any
    _encoder_start: EncoderStart | None = None
    _decoder_updates: ScaledUpdates | None = None

    def add_criteria(
        self,
        model: str,
        sizes: Mapping[str, int],
        criterion: str | None,
        criterion_conf: Mapping[str, Any] | None,
        criteria: Mapping[str, Any] | None,
        token_loss: TokenLoss | None = None,
    ) -> None:
        """Build the criteria; called last in the model's constructor.

        Args:
            model: Name of the model in YAML.
            sizes: Widths of the model's taps by name, without encoder layers.
            criterion: The key of ``model_conf``.
            criterion_conf: The key of ``model_conf``.
            criteria: The key of ``model_conf``.
            token_loss: The model's loss of ``logits``; None if it has none.

        Raises:
            UserError: A criterion or an option is unknown, or a criterion wants a tap
                that the model lacks.
        """
        count = layer_count(self.encoder)
        width = self.encoder.output_size() if count else 0
        layers = {f"layer:{n}": width for n in range(1, count + 1)}
        audio = {} if self.frontend is None else {"speech": 1}
        student = Student(
            model,
            tuple(self.token_list),
            {**sizes, **layers, **audio},
            timing=self._frame_times(range(1, count + 1)),
            rate=feature_rate(self.frontend),
            time_warp=bool(getattr(self.specaug, "apply_time_warp", False)),
            token_loss=token_loss,
        )
        self.criterion = None
        self.criteria = torch.nn.ModuleDict()
        for item in configured(
            {
                "criterion": criterion,
                "criterion_conf": criterion_conf,
                "criteria": criteria,
            }
        ):
            built = _build(item, student)
            if item.name:
                self.criteria[item.name] = built
            else:
                self.criterion = built
        self._shares: dict[str, Tensor] = {}
        self.schedule = None
        if any(item.common.is_scheduled for _, item in self._named_criteria()):
            self.count_updates()

    def count_updates(self) -> None:
        """Count the optimizer updates of this model from now on, in the checkpoint."""
        if self.schedule is None:
            self.schedule = UpdateCount()
        count_updates(self, self.schedule)  # type: ignore[arg-type]

    def start_encoder(self, lr_factor: float, freeze_updates: int) -> None:
        """Set the options of :class:`EncoderStart`; called by the constructor."""
        start = EncoderStart(self.encoder, lr_factor, freeze_updates)
        self._encoder_start = start if start.needed else None

    def scale_decoder_updates(
        self, parameters: Sequence[torch.nn.Parameter], lr_factor: float
    ) -> None:
        """Train pre-trained parameters of the decoder at another rate."""
        self._decoder_updates = ScaledUpdates(
            parameters, lr_factor, "decoder_lr_factor", "decoder"
        )

    def train(self, mode: bool = True) -> "DistillingMixin":
        """Set the mode; statistics of frozen batch normalisations never change.

        ESPnet's ``freeze_param`` keeps parameters only: without this, the running
        statistics of a frozen encoder would follow the new data.
        """
        super().train(mode)  # type: ignore[misc]
        for module in self.modules():  # type: ignore[attr-defined]
            if isinstance(module, _BatchNorm) and module.affine:
                frozen = not module.weight.requires_grad
                module.train(mode and not frozen)
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load parameters; to decode (``strict=False``), those of criteria that fit.

        Raises:
            UserError: Parameters are missing, unknown or of another shape.
        """
        if not strict:
            state_dict = fitting(state_dict, self.state_dict())  # type: ignore[attr-defined]
        with misfit_named():
            return super().load_state_dict(  # type: ignore[misc]
                state_dict, strict=strict, assign=assign
            )

    def begin_training(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Prepare a training; our trainer calls it before the first epoch."""
        if self._encoder_start is not None:
            self._encoder_start.attach(optimizers)
        if self._decoder_updates is not None:
            self._decoder_updates.attach(optimizers)

    def encode(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run frontend and encoder as ESPnet does; the encoder may be frozen."""
        encode = super().encode  # type: ignore[misc]
        if self._decoder_updates is not None and self.training:
            self._decoder_updates.require()
        if self._encoder_start is None or not self.training:
            return encode(speech, speech_lengths)
        with self._encoder_start.forward() as frozen:
            frames, lengths = encode(speech, speech_lengths)
        if frozen and isinstance(frames, tuple):  # with intermediate outputs
            frames = (self._encoder_start.connected(frames[0]), *frames[1:])
        elif frozen:
            frames = self._encoder_start.connected(frames)
        return frames, lengths

    def _extract_feats(
        self, speech: Tensor, speech_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features as ESPnet's; in evaluation, companions in a batch change nothing."""
        reach = 0 if self.training else mirrored_reach(self.frontend)
        if reach and speech.dim() == 2 and speech.size(0) > 1:
            longer = mirrored(speech, speech_lengths, reach)
            feats, lengths = self.frontend(longer, speech_lengths)
            return feats[:, : lengths.max()], lengths
        return super()._extract_feats(speech, speech_lengths)  # type: ignore[misc,no-any-return]

    def _named_criteria(self) -> list[tuple[str, AbsDistillCriterion]]:
        """Return all criteria with the prefixes of their log names."""
        found: list[tuple[str, Any]] = []
        if self.criterion is not None:
            found.append(("", self.criterion))
        return found + [(f"{name}.", item) for name, item in self.criteria.items()]

    @property
    def has_criteria(self) -> bool:
        """Whether the model has a criterion."""
        return self.criterion is not None or len(self.criteria) > 0

    def wanted_taps(self) -> frozenset[str]:
        """Return the names of the taps that the criteria read."""
        wants = (criterion.wants for _, criterion in self._named_criteria())
        return frozenset[str]().union(*wants)

    @contextlib.contextmanager
    def tapped_encoder(self, wanted: frozenset[str]) -> Iterator[LayerOutputs]:
        """Keep the outputs of the wanted encoder layers while the encoder runs."""
        with tapped_layers(self.encoder, layers_of(wanted)) as outputs:
            yield outputs

    def make_taps(
        self,
        wanted: frozenset[str],
        outputs: LayerOutputs,
        utt_ids: Any,
        **given: Any,
    ) -> Taps:
        """Collect the taps of a training step.

        Args:
            wanted: Taps that the criteria want; others are left out.
            outputs: Outputs of the wanted encoder layers.
            utt_ids: Names of the utterances from ESPnet's trainer.
            given: Other fields of :class:`Taps`; ``states`` may have unwanted entries.
        """
        states = given.pop("states", {})
        for name in ("decoder", "fired", "joint", "logits", "speech"):
            if name not in wanted:
                given.pop(name, None)
        if "speech" not in wanted:
            given.pop("speech_lengths", None)
        return Taps(
            layers=outputs.layers,
            layer_lens=outputs.lengths,
            timing=self._frame_times(outputs.layers),
            states={n: s for n, s in states.items() if f"states:{n}" in wanted},
            utt_ids=None if utt_ids is None else list(utt_ids),
            **given,
        )

    def _frame_times(self, layers: Iterable[int]) -> dict[str, FrameTimes]:
        """Times of the frames of ``hs_pad`` and of encoder layers, where known."""
        rate = feature_rate(self.frontend)
        places = {"hs_pad": None, **{f"layer:{n}": n for n in layers}}
        found = {
            tap: known_frame_times(self, rate, layer) if rate else None
            for tap, layer in places.items()
        }
        return {tap: times for tap, times in found.items() if times is not None}

    def add_distillation(
        self, loss: Tensor, stats: dict[str, Any], taps: Taps, divisor: Any
    ) -> Tensor:
        """Return the loss plus the weighted losses of all criteria; extend ``stats``.

        Args:
            loss: Loss of the model, a scalar.
            stats: Statistics of the model. A criterion of ``criteria`` adds
                ``NAME.loss``.
            taps: Taps of this step.
            divisor: Divisor of sums over target tokens; None if there are none.

        Raises:
            UserError: A criterion logs a name that the model logs, or it has a loss
                over tokens and the model has none.
        """
        for name, share in self._shares.items() if self.training else ():
            _enter(stats, name, share)
        self._shares = {}
        shares = GradientShares(self._shares)
        for prefix, criterion in self._named_criteria():
            common = criterion.common
            factor = self.scheduled_factor(common)
            if self.training and common.is_scheduled:
                _enter(stats, f"{prefix}schedule", factor)
            if factor == 0:
                # DDP waits for a gradient of each parameter.
                loss = loss + _zero(criterion)
                continue
            read = taps
            if common.max_share is not None:
                read = shares.limited(taps, criterion.wants, prefix, common.max_share)
            with naming(prefix.rstrip("."), always=False):
                output = criterion(read)
            for name, loss_sum in output.losses.items():
                frames = output.frames.get(name)
                if frames is None and divisor is None:
                    raise UserError(
                        f"the loss {prefix}{name} is a sum over target tokens, but "
                        "this model has none; set DistillOutput.frames for it"
                    )
                if frames is None:
                    term = loss_sum / divisor
                else:
                    count = torch.as_tensor(frames, device=loss_sum.device)
                    term = loss_sum * self._share_of_frames(count, taps)
                loss = loss + factor * output.weights[name] * term
                _enter(stats, prefix + name, term.detach())
            for name, value in output.stats.items():
                _enter(stats, prefix + name, value)
        return loss

    def scheduled_factor(self, options: CommonOptions) -> float:
        """Return the factor of the weight of a loss in this step."""
        if not options.is_scheduled or not self.training:
            return 1.0
        # Again, because the constructor does not run for a copy of the model.
        self.count_updates()
        assert self.schedule is not None
        return options.factor(self.schedule.updates)

    def _share_of_frames(self, frames: Tensor, taps: Taps) -> Tensor:
        """Return the factor for a sum over frames: 1 / frames of all processes.

        ESPnet's trainer averages the losses of the processes, weighted by their target
        tokens; the factor compensates for these weights. A process without frames takes
        part, too. In validation each process divides by its own number of frames,
        because ESPnet plots attention on the first process only.
        """
        distributed = torch.distributed
        count = frames.detach().double()
        if (
            not self.training
            or not distributed.is_available()
            or not distributed.is_initialized()
            or distributed.get_world_size() == 1
        ):
            return (1 / count.clamp(min=1)).float()
        weight = self.batch_weight(taps)
        total = torch.stack([count, weight.to(count)])
        distributed.all_reduce(total)
        return (total[1] / (total[0].clamp(min=1) * weight)).float()

    def batch_weight(self, taps: Taps) -> Tensor:
        """Return the weight of the batch for ESPnet's trainer: its target tokens."""
        return taps.token_lens.sum()


def _build(item: Configured, student: Student) -> AbsDistillCriterion:
    """Build a criterion; check its options before and its taps afterwards."""
    with item.naming():
        check_signature(item.cls, item.conf)
        build: Callable[..., AbsDistillCriterion] = item.cls
        student = dataclasses.replace(student, label=item.label)
        criterion = build(student, **item.conf)
        criterion.common = item.common
    require_taps(item.label, criterion.wants, student.sizes, student.model)
    return criterion


def _zero(criterion: AbsDistillCriterion) -> Tensor | float:
    """Return 0 with a gradient of zeros for each parameter of the criterion."""
    trained = [p for p in criterion.parameters() if p.requires_grad]
    return 0.0 * torch.stack([p.sum() for p in trained]).sum() if trained else 0.0


def _enter(stats: dict[str, Any], name: str, value: Any) -> None:
    if name in stats or name in _LATER:
        raise UserError(
            f"a criterion logs {name!r}, a name that the model has already: rename it, "
            "or move the criterion into model_conf.criteria, which adds its name"
        )
    stats[name] = value
