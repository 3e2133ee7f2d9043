"""Lets these tests import what is in ``tools/``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tools"))
