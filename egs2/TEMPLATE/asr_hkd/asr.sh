#!/usr/bin/env bash
# The stages of a recipe, called by its run.sh with the options of ESPnet's asr.sh.
#
# Without ESPNET_ROOT: python3 -m espnet_cif_hkd.recipe, on pip packages alone.
# With ESPNET_ROOT:    ESPnet's own asr.sh of that checkout, with this package
#                      registered in every command it starts.
# Stages, folders and files are the same, so one can continue what the other began.
# PYTHON names the interpreter (python3).

set -e
set -u
set -o pipefail

python=${PYTHON:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

if [ -z "${ESPNET_ROOT:-}" ]; then
    # On a cluster, this machine is the login node.
    if [ -e cmd.sh ] && ! grep -qE "^cmd_backend=['\"]?local['\"]?( |$)" cmd.sh; then
        echo "warning: cmd_backend in cmd.sh is not local, but only ESPnet's asr.sh" \
            "submits jobs: without ESPNET_ROOT everything runs on this machine" >&2
    fi
    exec "${python}" -m espnet_cif_hkd.recipe "$@"
fi

root=$(cd "${ESPNET_ROOT}" 2>/dev/null && pwd) ||
    fail "ESPNET_ROOT=${ESPNET_ROOT}: no such folder"
template=${root}/egs2/TEMPLATE/asr1
[ -f "${template}/asr.sh" ] ||
    fail "ESPNET_ROOT=${ESPNET_ROOT} is not an ESPnet checkout: ${template}/asr.sh is" \
        "missing; unset ESPNET_ROOT to run on pip packages alone"

# asr.sh needs these in the working directory. Links to a checkout are renewed, so that
# another one can be named later. Files and links of the recipe itself are kept.
for name in scripts pyscripts steps utils cmd.sh db.sh; do
    case "$(readlink "${name}")" in
        */TEMPLATE/asr1/"${name}") ;;
        *) if [ -e "${name}" ]; then continue; fi ;;
    esac
    ln -sfn "${template}/${name}" "${name}"
done
# ESPnet's path.sh expects the checkout three folders above the recipe, and a
# local/path.sh, which our recipes need not have.
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

# path.sh activates the checkout's Python, which also runs this package. Its scripts use
# variables that may be unset.
set +u
# shellcheck disable=SC1091
. ./path.sh
set -u

exec "${python}" -m espnet_cif_hkd.recipe.stock \
    --asr_sh "${template}/asr.sh" --python "${python}" -- "$@"
