#!/usr/bin/env bash
# The stages of a recipe, called by its run.sh with the options of ESPnet's asr.sh.
#
# Without ESPNET_ROOT: python3 -m espnet_cif_hkd.recipe, on pip packages alone.
# With ESPNET_ROOT:    ESPnet's own asr.sh of that checkout, with this package
#                      registered in every command it starts.
# Stages, folders and files are the same, so a run can be begun with one and finished
# with the other. PYTHON names the interpreter (python3).

set -e
set -u
set -o pipefail

python=${PYTHON:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

if [ -z "${ESPNET_ROOT:-}" ]; then
    exec "${python}" -m espnet_cif_hkd.recipe "$@"
fi

template=${ESPNET_ROOT}/egs2/TEMPLATE/asr1
[ -f "${template}/asr.sh" ] ||
    fail "ESPNET_ROOT=${ESPNET_ROOT} is no ESPnet checkout: ${template}/asr.sh is" \
        "missing; unset ESPNET_ROOT to run on pip packages alone"

# asr.sh wants these in the working directory. Links with a dead end are renewed, so
# that another checkout can be named later; files of the recipe's own are kept.
for name in scripts pyscripts steps utils path.sh cmd.sh db.sh; do
    if [ -L "${name}" ] || [ ! -e "${name}" ]; then
        if [ -e "${template}/${name}" ] || [ -L "${template}/${name}" ]; then
            ln -sfn "${template}/${name}" "${name}"
        fi
    fi
done

exec "${python}" -m espnet_cif_hkd.recipe.stock \
    --asr_sh "${template}/asr.sh" --python "${python}" -- "$@"
