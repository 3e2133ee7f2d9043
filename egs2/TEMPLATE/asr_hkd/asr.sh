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
    # On a cluster this is the login node.
    if [ -e cmd.sh ] && ! grep -qE "^cmd_backend=['\"]?local['\"]?( |$)" cmd.sh; then
        echo "warning: cmd.sh names another cmd_backend than local, but only ESPnet's" \
            "asr.sh submits jobs: without ESPNET_ROOT all runs on this machine" >&2
    fi
    exec "${python}" -m espnet_cif_hkd.recipe "$@"
fi

root=$(cd "${ESPNET_ROOT}" 2>/dev/null && pwd) ||
    fail "ESPNET_ROOT=${ESPNET_ROOT}: there is no such folder"
template=${root}/egs2/TEMPLATE/asr1
[ -f "${template}/asr.sh" ] ||
    fail "ESPNET_ROOT=${ESPNET_ROOT} is no ESPnet checkout: ${template}/asr.sh is" \
        "missing; unset ESPNET_ROOT to run on pip packages alone"

# asr.sh wants these in the working directory. Links are renewed, so that another
# checkout can be named later; files of the recipe's own are kept.
for name in scripts pyscripts steps utils cmd.sh db.sh; do
    if [ -L "${name}" ] || [ ! -e "${name}" ]; then
        ln -sfn "${template}/${name}" "${name}"
    fi
done
# ESPnet's path.sh looks for the checkout three folders above the recipe, and wants a
# local/path.sh, which a recipe need not have.
marker="# made by asr.sh for ESPNET_ROOT"
if [ ! -e path.sh ] || grep -qF "${marker}" path.sh; then
    rm -f path.sh
    {
        echo "${marker}"
        sed -e "s|^MAIN_ROOT=.*|MAIN_ROOT='${root}'|" \
            -e 's|^\. local/path\.sh$|[ ! -f local/path.sh ] \|\| . local/path.sh|' \
            "${template}/path.sh"
    } > path.sh
fi

# path.sh activates the checkout's Python, which ours runs in, too. Its scripts use
# variables that may be unset.
set +u
# shellcheck disable=SC1091
. ./path.sh
set -u

exec "${python}" -m espnet_cif_hkd.recipe.stock \
    --asr_sh "${template}/asr.sh" --python "${python}" -- "$@"
