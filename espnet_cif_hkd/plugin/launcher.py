"""Runs a module or a script as ``python3`` does, with our classes registered in ESPnet.

The registration also reaches processes that multiprocessing spawns. Such a child
imports, under the name ``__mp_main__``, the module that
``sys.modules["__main__"].__spec__`` of its parent names, but never a ``*.__main__``:
it would skip the launcher, and the registration would be lost. So the target runs in a
``__main__`` whose spec names :mod:`espnet_cif_hkd.plugin.spawned`. That module
registers our classes and runs the target again, as multiprocessing does.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import re
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any, NoReturn

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.io.missing import how_to_install, missing_named
from espnet_cif_hkd.io.processes import (
    OUTPUT_VARIABLE,
    PARENT_VARIABLE,
    die_with_parent,
    end_with_output,
)
from espnet_cif_hkd.plugin.preflight import TRAINING_MODULE, check_command
from espnet_cif_hkd.plugin.registration import register_on_import
from espnet_cif_hkd.plugin.user_modules import add_user_modules

SPAWNED_MODULE = "espnet_cif_hkd.plugin.spawned"
_COMMANDS = "espnet_cif_hkd.cli.espnet_cif"
# The target that a spawned child runs again: "module NAME" or "script PATH". A child
# inherits the environment; multiprocessing passes nothing else of ours.
TARGET_VARIABLE = "ESPNET_CIF_HKD_TARGET"

USAGE = """\
usage: python3 -m espnet_cif_hkd -m MODULE [ARGUMENT ...]
       python3 -m espnet_cif_hkd SCRIPT [ARGUMENT ...]
       python3 -m espnet_cif_hkd -c CODE [ARGUMENT ...]
       python3 -m espnet_cif_hkd COMMAND [ARGUMENT ...]
       python3 -m espnet_cif_hkd --user_module NAME[,NAME ...] -m MODULE ...

Runs the target as python3 does, after registering our classes in ESPnet, such as the
decoder `cif` and the models `cif` and `hybrid`; also in spawned processes. To run a
recipe of ESPnet:

    ./asr.sh --python "python3 -m espnet_cif_hkd" --asr_config conf/train_asr_cif.yaml

--user_module names your own modules, which register a criterion, a teacher or a class
of ESPnet. The process and the processes that it spawns import them. The environment
variable ESPNET_CIF_HKD_USER_MODULE does the same.

COMMAND is one of the program espnet-cif, such as transcribe; a script of the same name
in the working directory precedes it.
"""


class _MainSpec(importlib.machinery.ModuleSpec):
    """Names our module to multiprocessing, and the target's package to imports."""

    def __init__(self, package: str, origin: str | None) -> None:
        super().__init__(SPAWNED_MODULE, None, origin=origin)
        self._package = package

    @property
    def parent(self) -> str:
        return self._package


def main(argv: Sequence[str]) -> int:
    """Run a target.

    Args:
        argv: ``-m MODULE``, ``-c CODE`` or the path of a script, then its arguments;
            before it ``--user_module NAME``, any number of times.

    Returns:
        The exit status, 0 unless the launcher was called wrongly (2) or the input was
        bad (1); exceptions of the target other than ``UserError``, ``SystemExit``
        included, pass through.
    """
    try:
        while argv and argv[0] == "--user_module":
            if len(argv) < 2:
                return _wrong_usage("--user_module needs an argument")
            add_user_modules(argv[1])
            argv = argv[2:]
        add_user_modules()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not argv:
        return _wrong_usage("nothing to run")
    first, rest = argv[0], list(argv[1:])
    if first in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if first in ("-m", "-c") and not rest:
        return _wrong_usage(f"{first} needs an argument")
    if first.startswith("-") and first not in ("-m", "-c"):
        return _wrong_usage(
            f"unknown option {first}; options of the interpreter go before ours: "
            f"python3 {first} -m espnet_cif_hkd …"
        )
    if parent := os.environ.get(PARENT_VARIABLE):
        die_with_parent(int(parent))
    if os.environ.get(OUTPUT_VARIABLE):
        end_with_output()
    register_on_import()
    try:
        with missing_named():
            if first == "-m":
                _run_module(rest[0], rest[1:])
            elif first == "-c":
                _run_string(rest[0], rest[1:])
            elif _is_command(first):
                _run_module(_COMMANDS, list(argv))
            else:
                _run_script(first, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _wrong_usage(message: str) -> int:
    print(f"error: {message}\n\n{USAGE}", file=sys.stderr, end="")
    return 2


def _is_command(name: str) -> bool:
    """True for the name of a command of ``espnet-cif`` that is no script here."""
    if os.path.exists(name) or not re.fullmatch(r"[a-z]+([-_][a-z]+)*", name):
        return False
    package = _COMMANDS.rpartition(".")[0]
    return importlib.util.find_spec(f"{package}.{name.replace('-', '_')}") is not None


def _run_module(name: str, arguments: list[str]) -> None:
    spec = _find_module(name)
    loader = spec.loader
    code = None
    if isinstance(loader, importlib.abc.InspectLoader):
        code = loader.get_code(spec.name)
    if code is None:
        _stop(f"No code object available for {spec.name}")
    if spec.name == TRAINING_MODULE:
        check_command(arguments)
    # As multiprocessing does, a `*.__main__` is not run again in children.
    again = None if spec.name.endswith(".__main__") else f"module {spec.name}"
    sys.argv = [spec.origin or name, *arguments]
    _run(
        code,
        package=spec.name.rpartition(".")[0],
        again=again,
        __file__=spec.origin,
        __cached__=spec.cached,
        __loader__=loader,
    )


def _find_module(name: str) -> importlib.machinery.ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and how_to_install(name):
            raise
        _stop(
            f"Error while finding module specification for {name!r} "
            f"({type(error).__name__}: {error})"
        )
    if spec is None:
        _stop(f"No module named {name}")
    return spec


def _run_string(source: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    _run(compile(source, "<string>", "exec"), package=None, again=None)


def _run_script(path: str, arguments: list[str]) -> None:
    sys.argv = [path, *arguments]
    package = None
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        package, folder = "", path
        path = os.path.join(os.path.realpath(path), "__main__.py")
    path = os.path.abspath(path)
    # `python3 -m` put the working directory here; a script expects its own folder.
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.realpath(folder or ".")
    try:
        with io.open_code(path) as stream:
            source = stream.read()
    except OSError as error:
        _stop(f"can't open file {path!r}: {error.strerror}", status=2)
    _run(
        compile(source, path, "exec"),
        package=package,
        again=f"script {path}",
        __file__=path,
        __cached__=None,
    )


def _stop(message: str, status: int = 1) -> NoReturn:
    print(f"{sys.executable}: {message}", file=sys.stderr)
    sys.exit(status)


def _run(code: CodeType, package: str | None, again: str | None, **names: Any) -> None:
    """Run ``code`` in a new ``__main__`` that has ``names``."""
    if again is None:
        os.environ.pop(TARGET_VARIABLE, None)
    else:
        os.environ[TARGET_VARIABLE] = again
    module = ModuleType("__main__")
    module.__package__ = package
    module.__spec__ = _MainSpec(package or "", names.get("__file__"))
    vars(module).update(names)
    sys.modules["__main__"] = module
    exec(code, vars(module))
