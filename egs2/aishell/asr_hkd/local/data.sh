#!/usr/bin/env bash
# Stage 1: find or fetch AISHELL-1 and write data/{train,dev,test}. Works with ESPnet's
# own asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[0]##*/}) $*"
}

usage="Usage: $0 [--remove_archive true|false] [--data_url URL]
  --remove_archive  delete data_aishell.tgz (15.6 GB) when it is unpacked (false)
  --data_url        a mirror of https://www.openslr.org/resources/33
The corpus is looked for in the folder AISHELL, a variable of the environment or of
db.sh, and fetched there if it has none."

asr_data_dir=
remove_archive=false
data_url=

while [ $# -gt 0 ]; do
    case "$1" in
        --help) echo "${usage}"; exit 0 ;;
        --*=*) name=${1%%=*}; value=${1#*=}; shift ;;
        --*)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            name=$1; value=$2; shift 2 ;;
        *) echo "error: $1 is no option of $0" >&2; exit 2 ;;
    esac
    case "${name}" in
        --asr_data_dir) asr_data_dir=${value} ;;
        --remove_archive) remove_archive=${value} ;;
        --data_url) data_url=${value} ;;
        *) echo "error: $0 has no option ${name}" >&2; exit 2 ;;
    esac
done
case "${remove_archive}" in
    true | false) ;;
    *)
        echo "error: --remove_archive takes true or false, not ${remove_archive}" >&2
        exit 2 ;;
esac

if [ -n "${asr_data_dir}" ]; then
    log "nothing to do for ${asr_data_dir}: post-processing is not needed here"
    exit 0
fi

# db.sh and path.sh of a checkout set AISHELL, too, and use variables that may be unset.
given=${AISHELL:-}
set +u
# Without ESPNET_ROOT a path.sh may be left over from a checkout that has gone since.
if [ -n "${ESPNET_ROOT:-}" ] && [ -e ./path.sh ]; then
    # shellcheck disable=SC1091
    . ./path.sh
fi
if [ -e ./db.sh ]; then
    # shellcheck disable=SC1091
    . ./db.sh
fi
set -u

options=(--corpus "${given:-${AISHELL:-downloads}}")
if [ -n "${data_url}" ]; then
    options+=(--data_url "${data_url}")
fi
if [ "${remove_archive}" = true ]; then
    options+=(--remove_archive)
fi
"${PYTHON:-python3}" "$(dirname "$0")/aishell_prepare.py" "${options[@]}"
log "data preparation finished"
