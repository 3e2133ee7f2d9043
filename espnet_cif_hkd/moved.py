"""Module names of version 0.2, which can be imported until version 0.4.

An old name imports the new module, with a DeprecationWarning:
``espnet_cif_hkd.distill.store`` and ``espnet_cif_hkd.teachers.store.reader`` are one
module object. ``python3 -m OLD.NAME`` works, too.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import CodeType, ModuleType

# Old name -> new name, both below espnet_cif_hkd.
MOVED = {
    "bin": "cli",
    "bin.alignment_figure": "inference.figure",
    "bin.budget": "cli.budget",
    "bin.curve_figure": "cli.curve_figure",
    "bin.dump_teacher": "cli.dump_teacher",
    "bin.fonts": "inference.fonts",
    "bin.learning_curve": "cli.learning_curve",
    "bin.plot_alignment": "cli.plot_alignment",
    "bin.training_log": "recipe.training_log",
    "checkpoint": "models.checkpoint",
    "compat": "plugin.compat",
    "decoder.greedy": "search.greedy",
    "distill.alignment": "teachers.text.alignment",
    "distill.contrastive": "losses.contrastive",
    "distill.contrastive_naive": "losses.contrastive_naive",
    "distill.dump": "teachers.store.writer",
    "distill.header": "teachers.store.header",
    "distill.online": "teachers.text.online",
    "distill.regression": "losses.regression",
    "distill.store": "teachers.store.reader",
    "distill.teacher": "teachers.text.plm",
    "distill.transfer": "io.device",
    "distill.units": "teachers.text.spelling",
    "launcher": "plugin.launcher",
    "lock": "io.lock",
    "model": "models.cif",
    "recipe.alignment": "recipe.stages.sclite",
    "recipe.audio": "io.audio",
    "recipe.config_check": "recipe.checks.config",
    "recipe.data": "recipe.stages.data",
    "recipe.decode": "recipe.stages.decode",
    "recipe.disk": "io.disk",
    "recipe.fetch": "io.fetch",
    "recipe.filter_data": "recipe.stages.filter_data",
    "recipe.format_audio": "recipe.stages.format_audio",
    "recipe.hub": "recipe.share.hub",
    "recipe.kaldi_files": "io.tables",
    "recipe.lengths": "recipe.checks.lengths",
    "recipe.lm": "recipe.stages.lm",
    "recipe.log": "io.log",
    "recipe.model_card": "recipe.share.model_card",
    "recipe.pack": "recipe.share.pack",
    "recipe.packed": "recipe.share.packed",
    "recipe.preflight": "recipe.checks.preflight",
    "recipe.report": "recipe.stages.report",
    "recipe.score": "recipe.stages.score",
    "recipe.stamps": "recipe.checks.stamps",
    "recipe.statistics": "recipe.stages.statistics",
    "recipe.store": "recipe.hooks",
    "recipe.tokens": "recipe.stages.tokens",
    "recipe.train": "recipe.stages.train",
    "recipe.unpack": "io.unpack",
    "recipe.upload": "recipe.share.upload",
    "spawned": "plugin.spawned",
    "speech2text": "inference.speech2text",
    "token_loss": "losses.token",
}


class MovedFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules by their old names.

    It must be the first finder: ``espnet_cif_hkd.bin`` has the path of ``cli``, where
    the usual finders would load a second copy of each module.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        new = _new_name(fullname)
        spec = None if new is None else importlib.util.find_spec(new)
        if spec is None:
            return None
        return importlib.machinery.ModuleSpec(
            fullname,
            self,
            origin=spec.origin,  # `python3 -m` copies it to sys.argv
            is_package=spec.submodule_search_locations is not None,
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = _warned(spec.name)
        module = importlib.import_module(new)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has set the spec of the old name.
        module.__spec__ = self._own_spec

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the new module, for ``python3 -m OLD.NAME``."""
        new = _warned(fullname)
        spec = importlib.util.find_spec(new)
        loader = None if spec is None else spec.loader
        if not isinstance(loader, importlib.abc.InspectLoader):
            raise ImportError(f"{new} has no code", name=fullname)
        return loader.get_code(new)

    def get_source(self, fullname: str) -> str | None:
        return None


def _new_name(fullname: str) -> str | None:
    prefix, _, name = fullname.partition(".")
    if prefix != "espnet_cif_hkd" or name not in MOVED:
        return None
    return f"{prefix}.{MOVED[name]}"


def _warned(fullname: str) -> str:
    new = _new_name(fullname)
    assert new is not None
    warnings.warn(
        f"{fullname} has moved to {new}; version 0.4 removes the old name",
        DeprecationWarning,
        stacklevel=2,
    )
    return new


def install() -> None:
    """Make old names importable. May be called any number of times."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedFinder())
