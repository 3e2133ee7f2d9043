"""Importing the package, and that of recognition, costs next to nothing."""

import json
import subprocess
import sys

PROBE = """
import json, sys, time
started = time.process_time()
import espnet_cif_hkd, espnet_cif_hkd.inference
seconds = time.process_time() - started
print(json.dumps([seconds, sorted(sys.modules)]))
"""


def import_once():
    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)


def test_import_takes_less_than_50_ms():
    # Of this process, and the best of several: other processes use the machine, too.
    assert min(import_once()[0] for _ in range(5)) < 0.05


def test_import_brings_nothing_heavy():
    top = {name.partition(".")[0] for name in import_once()[1]}
    assert not top & {"torch", "transformers", "numpy", "espnet", "espnet2", "yaml"}
