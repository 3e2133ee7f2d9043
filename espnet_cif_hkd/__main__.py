"""``python3 -m espnet_cif_hkd``: see :mod:`espnet_cif_hkd.plugin.launcher`."""

import sys

from espnet_cif_hkd.plugin.launcher import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
