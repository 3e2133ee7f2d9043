#!/usr/bin/env bash
# A stranger's first hour: an empty environment, the wheel, and docs/own_corpus.md, in a
# folder outside of this repository.
#   tools/fresh_install.sh [--python PYTHON] [--wheel WHEEL] FOLDER
# Follows docs/install.md, "With pip alone". Needs a network, and 3 GB with a CPU torch.

set -euo pipefail

python=python3
wheel=
folder=
while [ $# -gt 0 ]; do
    case "$1" in
        --python) python=$2 && shift 2 ;;
        --wheel) wheel=$(realpath "$2") && shift 2 ;;
        -*) echo "error: unknown option $1" >&2 && exit 1 ;;
        *) folder=$1 && shift ;;
    esac
done
if [ -z "${folder}" ]; then
    echo "usage: tools/fresh_install.sh [--python PYTHON] [--wheel WHEEL] FOLDER" >&2
    exit 2
fi
if [ -e "${folder}" ]; then
    echo "error: ${folder} exists: name a new folder" >&2
    exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "${folder}"
cd "${folder}"
# The page and the script that follows it, as somebody has them who reads them on the web.
cp "${root}/docs/own_corpus.md" "${root}/tools/follow_own_corpus.py" .
# pip counts modules on PYTHONPATH as installed.
unset PYTHONPATH

"${python}" -m venv .venv
# shellcheck disable=SC1091
. .venv/bin/activate
if [ -z "${wheel}" ]; then
    # Setuptools builds in the source; a copy keeps the repository clean. It has the files
    # that git knows, not environments and experiments.
    mkdir source
    if [ -e "${root}/.git" ]; then
        git -C "${root}" ls-files -z | tar -C "${root}" --null -cf - -T - | tar -C source -xf -
    else
        cp -r "${root}/." source
    fi
    (cd source && python3 -m pip wheel --quiet --no-deps -w .. .)
    rm -rf source
    wheel=$(realpath ./espnet_cif_hkd-*.whl)
fi
case $(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') in
    3.12)
        python3 -m pip install --quiet "${wheel}[espnet,teacher,recipe]"
        ;;
    *)
        python3 -m pip install --quiet torch==2.13.0
        python3 -m pip install --quiet "${wheel}[espnet,teacher,recipe]"
        python3 -m pip install --quiet --no-deps espnet==202511 espnet_model_zoo \
            torchaudio
        # PyPI's torchaudio does not load beside a torch for the CPU: see docs/install.md.
        python3 -c 'import torchaudio' 2>/dev/null || rm .venv/lib/python3.*/site-packages/torchaudio/lib/*.so
        ;;
esac
python3 -c 'import espnet_cif_hkd as e; print("installed:", e.__version__, e.__file__)'
python3 follow_own_corpus.py work --page own_corpus.md
