"""``python3 -m espnet_cif_hkd.recipe``."""

import sys

from espnet_cif_hkd.recipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
