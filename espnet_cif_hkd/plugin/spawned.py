"""The ``__mp_main__`` of processes spawned by a process of the launcher.

See :mod:`espnet_cif_hkd.plugin.launcher`. Imported under any other name, this module
does nothing.
"""

import os
import runpy
from typing import Any

from espnet_cif_hkd.io.processes import PARENT_VARIABLE, die_with_parent
from espnet_cif_hkd.plugin.launcher import TARGET_VARIABLE
from espnet_cif_hkd.plugin.registration import register_on_import


def target_names() -> dict[str, Any]:
    """Run the launcher's target as ``__mp_main__``; return its globals."""
    kind, _, target = os.environ.get(TARGET_VARIABLE, "").partition(" ")
    if kind == "module":
        names = runpy.run_module(target, run_name="__mp_main__", alter_sys=True)
    elif kind == "script":
        names = runpy.run_path(target, run_name="__mp_main__")
    else:
        names = {}
    # Processes that the child spawns must run this module as well, so its spec and the
    # other module attributes are kept.
    return {
        name: value
        for name, value in names.items()
        if not (name.startswith("__") and name.endswith("__"))
    }


if __name__ == "__mp_main__":
    if PARENT_VARIABLE in os.environ:
        die_with_parent(os.getppid())
    register_on_import()
    globals().update(target_names())
