"""The only place that writes into ESPnet's tables of classes.

``register()`` does so at once. The launcher instead calls ``register_on_import()``:
importing ``espnet2.tasks.asr`` takes more than ten seconds, which commands that never
use it (``espnet2.bin.launch``, ``tokenize_text``) should not wait for.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.missing import missing_named
from espnet_cif_hkd.plugin.user_modules import import_user_modules

TASK_MODULE = "espnet2.tasks.asr"
LM_MODULE = "espnet2.tasks.lm"

# Table of classes in TASK_MODULE -> name in YAML -> (module, class). ESPnet looks
# names up in lower case.
REGISTERED: dict[str, dict[str, tuple[str, str]]] = {
    "preprocessor_choices": {
        "silence": ("espnet_cif_hkd.encoder.silence", "SilencePreprocessor"),
    },
    "frontend_choices": {
        "kaldi_fbank": ("espnet_cif_hkd.encoder.kaldi_fbank", "KaldiFbankFrontend"),
        "speech_teacher": (
            "espnet_cif_hkd.encoder.speech_teacher",
            "SpeechTeacherFrontend",
        ),
    },
    "encoder_choices": {
        "cif_conformer": (
            "espnet_cif_hkd.encoder.cif_conformer",
            "CIFConformerEncoder",
        ),
        "joined": ("espnet_cif_hkd.encoder.joined", "JoinedEncoder"),
    },
    "decoder_choices": {
        "cif": ("espnet_cif_hkd.decoder.cif_decoder", "CIFDecoder"),
        "cif_nar": ("espnet_cif_hkd.decoder.cif_nar", "CIFNARDecoder"),
        "cif_whisper": ("espnet_cif_hkd.decoder.cif_whisper", "CIFWhisperDecoder"),
    },
    "model_choices": {
        "cif": ("espnet_cif_hkd.models.cif", "CIFASRModel"),
        "hybrid": ("espnet_cif_hkd.models.hybrid", "HybridASRModel"),
        "pretrain": ("espnet_cif_hkd.models.pretrain", "PretrainModel"),
        "transducer": ("espnet_cif_hkd.models.transducer", "TransducerASRModel"),
    },
}
# Names of the decoders over fired vectors.
CIF_DECODERS = tuple(REGISTERED["decoder_choices"])


def register() -> None:
    """Register our classes and our trainer in ESPnet, and import user modules.

    May be called any number of times. Imports ``espnet2.tasks.asr``.

    Raises:
        UserError: If another class already has one of the names (then no table is
            changed), if a user module cannot be imported, or without ESPnet.
    """
    with missing_named():
        task = importlib.import_module(TASK_MODULE)
    wanted = [
        (getattr(task, table), name, getattr(importlib.import_module(module), cls))
        for table, names in REGISTERED.items()
        for name, (module, cls) in names.items()
    ]
    for choices, name, cls in wanted:
        check_choice(choices, name, cls)
    for choices, name, cls in wanted:
        if _known(choices, name) is None:
            choices.classes[name] = cls
    _set_trainer(task.ASRTask)
    _register_lm()
    import_user_modules()


def _register_lm() -> None:
    _set_trainer(importlib.import_module(LM_MODULE).LMTask)


def _set_trainer(task: Any) -> None:
    from espnet_cif_hkd.plugin.trainer import install

    install(task)


def check_choice(choices: Any, name: str, cls: type) -> None:
    """Check that a class can be registered in a table of ESPnet.

    Args:
        choices: An ``espnet2.train.class_choices.ClassChoices``.
        name: The name of the class in YAML.
        cls: The class.

    Raises:
        UserError: If ``name`` is already another class, or if the table is for classes
            of another kind.
    """
    taken = _known(choices, name)
    if taken is not None and taken is not cls:
        raise UserError(
            f"the {choices.name} {name!r} is already "
            f"{taken.__module__}.{taken.__qualname__}, so that "
            f"{cls.__module__}.{cls.__qualname__} cannot have this name; remove the "
            "other registration, or use only one of the two extensions in one process"
        )
    if choices.base_type is not None and not issubclass(cls, choices.base_type):
        raise UserError(
            f"{cls.__module__}.{cls.__qualname__} is no {choices.base_type.__name__}: "
            f"this release of ESPnet cannot use it as a {choices.name}"
        )


def _known(choices: Any, name: str) -> Any:
    """Return the class that a table has for a name, or None.

    It is there after a registration, or by an entry point: see docs/upstream.md.
    """
    return choices.get_class(name) if name in choices.choices() else None


def register_on_import() -> None:
    """Call ``register()`` as soon as ``espnet2.tasks.asr`` has been imported.

    For the launcher and its spawned processes. May be called any number of times.
    """
    if TASK_MODULE in sys.modules:
        register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds only the modules of ESPnet's tasks, by the other finders."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        hooks = {TASK_MODULE: register, LM_MODULE: _register_lm}
        if fullname not in hooks:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, hooks[fullname])
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Loads a module by its own loader, then calls a function."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self.loader = loader
        self.then = then

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # inspect and pkgutil need the original loader.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.then()
