"""The base class of distillation criteria, its input and its output."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_cif_hkd.distill.schedule import CommonOptions
from espnet_cif_hkd.distill.taps import MODEL_TAPS, Student, Taps, require_taps
from espnet_cif_hkd.errors import UserError


@dataclass
class DistillOutput:
    """Result of a criterion for one batch.

    Attributes:
        losses: Losses by name, float32 scalars: unweighted sums over the target tokens
            of the batch, or over frames.
        weights: Weight of each loss, by name.
        frames: For each loss that is a sum over frames, or over others than target
            tokens, their number, an integer scalar. The model divides the loss by this
            number, summed over all processes. Every other loss is divided by the number
            of target tokens.
        stats: Other numbers for the log, scalars by name.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor | float] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckContext:
    """Information for the checks of a criterion's options in a recipe.

    Attributes:
        model: Name of the model in YAML.
        token_list: Tokens of the recogniser; None before stage 5 has made them.
        token_type: Token type of the recogniser, such as ``char``; None if unknown.
        source: The configuration file, for messages.
        training: All options of ESPnet's training command, such as ``specaug_conf``;
            empty if they are unknown.
    """

    model: str = "cif"
    token_list: Sequence[str] | None = None
    token_type: str | None = None
    source: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def taps(self) -> frozenset[str] | None:
        """Taps of the model, with ``layer:*``; None for a model of the user."""
        taps = MODEL_TAPS.get(self.model)
        return None if taps is None else taps | {"layer:*"}


@dataclass(frozen=True)
class Sentences:
    """The training texts for the store of a criterion.

    Attributes:
        sequences: A function that returns an iterator over the token ids of each
            sentence, without ``<eos>``. Sentences may repeat. It can be called several
            times.
        token_list: Tokens of the recogniser.
        token_type: ``char``, ``bpe``, ``word`` or ``hugging_face``.
        device: Device of the teacher.
        shard_bytes: Approximate size of one file of the store.
        texts: For the name of each text, the training text first, a function that
            returns an iterator over the names of its utterances and their token ids;
            empty if the texts are not known.
    """

    sequences: Callable[[], Iterable[Sequence[int]]]
    token_list: Sequence[str]
    token_type: str
    device: torch.device
    shard_bytes: int = 64 * 2**20
    texts: Mapping[str, Callable[[], Iterable[tuple[str, Sequence[int]]]]] = field(
        default_factory=dict
    )


class AbsDistillCriterion(torch.nn.Module, ABC):
    """A training loss that compares taps of a recogniser with targets of a teacher.

    ``criterion_choices.register`` gives a subclass a name in YAML. The model builds
    it as ``Class(student, **options)``. :class:`Student` has the token list and the
    width of each tap; the options come from YAML. docs/own_criterion.md has a complete
    example.

    A subclass raises ``UserError`` for wrong options. Its message calls the options
    ``criterion_conf``; the model replaces this by the key that the user wrote.

    Attributes:
        wants: Names of the taps that :meth:`forward` reads, such as ``hs_pad``,
            ``layer:4``, ``fired``, ``states:output`` or ``logits``. The model reads
            this set before each forward pass and provides only these taps. It is a
            class attribute, or the constructor sets it from the options.
        common: The options that every criterion has, such as ``start``; the model sets
            and applies them. An option of the same name in the constructor replaces
            the common one.
    """

    wants: frozenset[str] = frozenset()
    common: CommonOptions = CommonOptions()

    @abstractmethod
    def forward(self, taps: Taps) -> DistillOutput:
        """Return the losses of one batch; padding of the taps may hold any value."""

    @classmethod
    def check(cls, conf: Mapping[str, Any], context: CheckContext) -> list[str]:
        """Check options before a training, without building a model.

        Recipes call it twice: before stage 1 without a token list, and before stage 10
        with it. This implementation checks that the constructor takes the options, and
        that the model has the taps in ``wants`` of the class.

        Args:
            conf: The options.
            context: The model, the tokens and the configuration file.

        Returns:
            Remarks for the log, one line each.

        Raises:
            UserError: An option is unknown, missing or wrong.
        """
        check_signature(cls, conf)
        if context.taps is not None:
            require_taps(cls.__name__, cls.wants, context.taps, context.model)
        return []

    @classmethod
    def check_training(
        cls, conf: Mapping[str, Any], training: Mapping[str, Any]
    ) -> None:
        """Check that the options of ESPnet's training command fit the criterion.

        The launcher calls it before a training, recipes through :meth:`check`.

        Args:
            conf: The options of the criterion.
            training: All options of the command, such as ``specaug_conf``; empty if
                they are unknown.

        Raises:
            UserError: An option does not fit.
        """

    @classmethod
    def store(cls, conf: Mapping[str, Any]) -> str | None:
        """Return the folder to fill before a training; None if there is none."""
        return None

    @classmethod
    def stores(cls, conf: Mapping[str, Any]) -> list[str]:
        """Return all folders to fill before a training; by default :meth:`store`."""
        folder = cls.store(conf)
        return [str(folder)] if folder else []

    @classmethod
    def stale_stores(
        cls, conf: Mapping[str, Any], token_list: Sequence[str]
    ) -> list[str]:
        """Return the folders of :meth:`stores` that the next dump fills again.

        Raises:
            UserError: An option or a store is wrong.
        """
        return []

    @classmethod
    def fill(cls, conf: Mapping[str, Any], folder: str, sentences: Sentences) -> None:
        """Add what is missing to ``folder``, one of :meth:`stores`.

        Raises:
            UserError: The folder cannot be filled.
        """
        raise UserError(f"{cls.__name__} names a store, but has no method to fill it")

    @classmethod
    def teacher_files(cls, conf: Mapping[str, Any]) -> list[Path]:
        """Return the files of the option ``teacher`` that a training depends on.

        By default none: recipes watch the complete folder.
        """
        return []

    @classmethod
    def speech_teachers(cls, conf: Mapping[str, Any]) -> Mapping[str, dict[str, Any]]:
        """Return the speech teachers of the criterion by name; none by default.

        Recipes fill the store of each from audio. Then :meth:`store` and :meth:`fill`,
        which are for texts, are not used.

        Args:
            conf: The options.

        Returns:
            Options of ``build_speech_teacher``, among them ``teacher_store``.

        Raises:
            UserError: An option is wrong.
        """
        return {}


def check_signature(cls: type[AbsDistillCriterion], conf: Mapping[str, Any]) -> None:
    """Refuse options that the constructor of a criterion does not take.

    Raises:
        UserError: An option is unknown or missing, or the class is written for 0.2.
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
