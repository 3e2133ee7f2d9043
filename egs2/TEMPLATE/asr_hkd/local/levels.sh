#!/usr/bin/env bash
# Before stage 10 of a system with soft labels: makes lexicons, sub-word units, alignments
# and language models of its levels, each unless it is up to date:
#   local/levels.sh [options of espnet_cif_hkd.cli.prepare_levels] -- [options of asr.sh]

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

activate_checkout
exec "${PYTHON:-python3}" -m espnet_cif_hkd.cli.prepare_levels "$@"
