"""What a distillation criterion takes and gives, and the hooks that checks call."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.taps import MODEL_TAPS, Student, Taps, require_taps
from espnet_cif_hkd.errors import UserError


@dataclass
class DistillOutput:
    """Result of a criterion for one batch.

    Attributes:
        losses: float32 scalars by name: sums over the target tokens of the batch, or
            over frames, without their weights.
        weights: The weight of each of them.
        frames: For each loss that is a sum over frames: over how many, an integer
            scalar. The model divides it by this number, over all processes; every other
            loss is divided as the model's own loss, by the number of target tokens.
        stats: Other numbers for the log.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor | float] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckContext:
    """What is known when a recipe checks the options of a criterion.

    Attributes:
        model: Name of the model in YAML.
        token_list: Tokens of the recogniser; None before they exist.
        token_type: ``char``, ``bpe``, … of the recogniser; None if not known.
        source: The configuration file, for messages.
    """

    model: str = "cif"
    token_list: Sequence[str] | None = None
    token_type: str | None = None
    source: str = ""

    @property
    def taps(self) -> frozenset[str] | None:
        """Taps of the model, with ``layer:*``; None if it is a model of the user's."""
        taps = MODEL_TAPS.get(self.model)
        return None if taps is None else taps | {"layer:*"}


@dataclass(frozen=True)
class Sentences:
    """The training texts for which a criterion fills its store.

    Attributes:
        sequences: Called, iterates over the token ids of each sentence, without
            ``<eos>``; sentences may repeat. May be called several times.
        token_list: Tokens of the recogniser.
        token_type: ``char``, ``bpe``, ``word`` or ``hugging_face``.
        device: Where the teacher computes.
        shard_bytes: About the size of one file of the store.
    """

    sequences: Callable[[], Iterable[Sequence[int]]]
    token_list: Sequence[str]
    token_type: str
    device: torch.device
    shard_bytes: int = 64 * 2**20


class AbsDistillCriterion(torch.nn.Module, ABC):
    """Compares taps of a recogniser with targets of a teacher; for training only.

    ``criterion_choices.register`` gives a subclass a name in YAML. The model builds
    it as ``Class(student, **options)``: :class:`Student` has the token list and the
    width of each tap, the options are those of YAML. docs/own_criterion.md has a
    complete example.

    In a subclass, a mistake in the options raises ``UserError``. Its message calls the
    options ``criterion_conf``; it is replaced by the name that the user gave them.

    Attributes:
        wants: Names of the taps that :meth:`forward` reads, such as ``hs_pad``,
            ``layer:4``, ``fired``, ``states:output`` or ``logits``. The model asks for
            them before each forward pass and exposes these only. A class attribute, or
            set by the constructor if options decide.
    """

    wants: frozenset[str] = frozenset()

    @abstractmethod
    def forward(self, taps: Taps) -> DistillOutput:
        """Losses of one batch; padding of the taps may hold any value."""

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check options before a training begins, without building a model.

        Recipes call it twice: before stage 1, without a token list, and before stage
        10, with it. This one checks that the constructor takes the options, and that
        the model has the taps of the class.

        Args:
            conf: The options.
            context: What else is known.

        Returns:
            Remarks for the user, one line each.

        Raises:
            UserError: An option is unknown, missing or wrong.
        """
        check_signature(cls, conf)
        if context.taps is not None:
            require_taps(cls.__name__, cls.wants, context.taps, context.model)
        return []

    @classmethod
    def store(cls, conf: Mapping[str, Any]) -> str | None:
        """The folder that must be filled before a training; None if there is none."""
        return None

    @classmethod
    def fill(cls, conf: Mapping[str, Any], folder: str, sentences: Sentences) -> None:
        """Fill ``folder``, that of :meth:`store`, and keep what it has already.

        Raises:
            UserError: It cannot be filled.
        """
        raise UserError(f"{cls.__name__} names a store, but has no method to fill it")


def check_signature(cls: type[AbsDistillCriterion], conf: Mapping[str, Any]) -> None:
    """Refuse options that the constructor of a criterion does not take.

    Raises:
        UserError: Names the option, or says how to change a class of version 0.2.
    """
    forward = list(inspect.signature(cls.forward).parameters.values())
    needed = [item for item in forward[1:] if item.default is inspect.Parameter.empty]
    if len(needed) != 1:
        raise UserError(
            f"{cls.__module__}.{cls.__qualname__}.forward takes "
            f"{', '.join(item.name for item in needed) or 'nothing'}, as in version "
            "0.2: write forward(self, taps), list the taps in wants, and take student "
            "in place of token_list, embed_size and state_size (docs/own_criterion.md)"
        )
    try:
        inspect.signature(cls).bind(Student("", (), {}), **conf)
    except TypeError as error:
        known = list(inspect.signature(cls).parameters)[1:]
        raise UserError(
            f"criterion_conf: {error}; {cls.__name__} has the options "
            f"{', '.join(known) or '(none)'}"
        ) from error
