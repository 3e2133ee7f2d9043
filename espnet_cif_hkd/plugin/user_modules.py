"""The user's own modules, imported wherever ESPnet knows our classes.

Such a module registers criteria (``espnet_cif_hkd.distill.criterion_choices``),
teachers, or classes in ESPnet's own tables. An environment variable names the modules,
because child processes inherit it. They are imported after our own registration, when
ESPnet's tasks are imported or a name is looked up that is not known yet.
"""

import importlib
import importlib.util
import os
import sys

from espnet_cif_hkd.errors import UserError

USER_MODULE_VARIABLE = "ESPNET_CIF_HKD_USER_MODULE"


def user_modules() -> list[str]:
    """Names of the user's modules, from the environment."""
    names = os.environ.get(USER_MODULE_VARIABLE, "").split(",")
    return [name.strip() for name in names if name.strip()]


def add_user_modules(names: str = "") -> None:
    """Add to the user's modules; check that all of them can be found.

    Args:
        names: Names of modules, separated by commas.

    Raises:
        UserError: A module cannot be found; names it and where it was looked for.
    """
    modules = user_modules()
    modules += [
        name for name in map(str.strip, names.split(",")) if name not in ("", *modules)
    ]
    if not modules:
        return
    # A script has its own folder on the path in place of the working directory.
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
    """Import the user's modules. May be called any number of times.

    Raises:
        UserError: A module fails; names the module, the error and its line.
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
            reason = " ".join(str(error).split())
            raise UserError(
                f"--user_module {name}: {type(error).__name__}: {reason}"
                f"{_line_of(error)}"
            ) from error


def _line_of(error: BaseException) -> str:
    """The last place of the user's code in the traceback of an error."""
    if isinstance(error, SyntaxError):  # its message has the place
        return ""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name != __file__ and "importlib" not in name:
            place = f" ({name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
