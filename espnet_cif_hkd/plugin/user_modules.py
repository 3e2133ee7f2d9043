"""User modules, imported in every process that registers our classes.

A user module registers criteria (``espnet_cif_hkd.distill.criterion_choices``),
teachers, or classes in ESPnet's tables. An environment variable holds the names of the
modules, because child processes inherit it. The modules are imported after our own
registration: when ESPnet's tasks are imported, or when an unknown name is looked up.
"""

import importlib
import importlib.util
import os
import sys

from espnet_cif_hkd.errors import UserError, one_line

USER_MODULE_VARIABLE = "ESPNET_CIF_HKD_USER_MODULE"


def user_modules() -> list[str]:
    """Return the names of the user modules, from the environment."""
    names = os.environ.get(USER_MODULE_VARIABLE, "").split(",")
    return [name.strip() for name in names if name.strip()]


def add_user_modules(names: str = "") -> None:
    """Add user modules; check that all of them can be found.

    Args:
        names: Names of modules, separated by commas.

    Raises:
        UserError: A module cannot be found; the message has its name and the places.
    """
    modules = user_modules()
    modules += [
        name for name in map(str.strip, names.split(",")) if name not in ("", *modules)
    ]
    if not modules:
        return
    # For a script the path has the script's folder instead of the working directory.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    for name in modules:
        try:
            found = importlib.util.find_spec(name) is not None
            reason = "there is no such module"
        except Exception as error:
            found, reason = False, f"{type(error).__name__}: {error}"
        if not found:
            raise UserError(
                f"--user_module {name}: {' '.join(reason.split())}; it must be "
                f"installed, or a module below {os.getcwd()} or in PYTHONPATH"
            )
    os.environ[USER_MODULE_VARIABLE] = ",".join(modules)


def module_files(names: str) -> list[str]:
    """The files of modules, for fingerprints; a package gives its ``__init__``.

    Args:
        names: Names of modules, separated by commas.
    """
    specs = (importlib.util.find_spec(n) for n in map(str.strip, names.split(",")) if n)
    return [spec.origin for spec in specs if spec is not None and spec.origin]


def import_user_modules() -> None:
    """Import the user modules. May be called any number of times.

    Raises:
        UserError: A module fails; the message has the module, the error and the line.
    """
    for name in user_modules():
        if name in sys.modules:
            continue
        add_user_modules()
        try:
            importlib.import_module(name)
        except UserError as error:
            raise UserError(f"--user_module {name}: {error}") from error
        except Exception as error:
            reason = one_line(error)
            raise UserError(
                f"--user_module {name}: {type(error).__name__}: {reason}"
                f"{_line_of(error)}"
            ) from error


def _line_of(error: BaseException) -> str:
    """Return the last line of user code in the traceback of an error."""
    if isinstance(error, SyntaxError):  # its message has the place
        return ""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name != __file__ and "importlib" not in name:
            place = f" ({name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
