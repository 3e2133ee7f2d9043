#!/usr/bin/env bash
# Checks this package on a machine with a GPU, PyTorch and no network.
#   tools/gpu_check.sh bundle [FILE]   where there is a network: packs all that is needed
#   tools/gpu_check.sh run             on the GPU machine: installs, tests, measures
# See docs/gpu_check.md; each command has --help. PYTHON names the interpreter: on the
# GPU machine the one that has PyTorch (default: python3).

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ "${1:-}" = bundle ] && [ -x "${here}/../.venv/bin/python" ]; then
    python=${here}/../.venv/bin/python
fi
PYTHONPATH=${here}${PYTHONPATH:+:${PYTHONPATH}} PYTHONUNBUFFERED=1 \
    exec "${python}" -m gpu_check "$@"
