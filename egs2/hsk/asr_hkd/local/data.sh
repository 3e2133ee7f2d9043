#!/usr/bin/env bash
# Stage 1: fetch sentences and syllables, voice them and write data/{train,dev,test}.
# Works with ESPnet's own asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[0]##*/}) $*"
}

usage="Usage: $0 [--subset N] [--downloads DIR]
  --subset     N training sentences in data/{train,dev,test}_N
  --downloads  where the packages and the made audio are kept (downloads)"

asr_data_dir=
subset=0
downloads=downloads

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
        --subset) subset=${value} ;;
        --downloads) downloads=${value} ;;
        *) echo "error: $0 has no option ${name}" >&2; exit 2 ;;
    esac
done

if [ -n "${asr_data_dir}" ]; then
    log "nothing to do for ${asr_data_dir}: post-processing is not needed here"
    exit 0
fi

# Without ESPNET_ROOT a path.sh may be left over from a checkout that has gone since.
if [ -n "${ESPNET_ROOT:-}" ] && [ -e ./path.sh ]; then
    # ESPnet's activation scripts use variables that may be unset.
    set +u
    # shellcheck disable=SC1091
    . ./path.sh
    set -u
fi

log "preparing the HSK sentences (9 MB to fetch)"
"${PYTHON:-python3}" "$(dirname "$0")/hsk_prepare.py" \
    --downloads "${downloads}" --subset "${subset}"
log "data preparation finished"
