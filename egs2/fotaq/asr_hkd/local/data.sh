#!/usr/bin/env bash
# Stage 1: fetch FOTAQ and write data/{train,dev,test}. Works with ESPnet's own
# asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[0]##*/}) $*"
}

usage="Usage: $0 [--fotaq_archive PATH] [--subset N] [--downloads DIR]
  --fotaq_archive  queen.1c of the freeware CD version, or the Debian package
  --subset         N training utterances in data/{train,dev,test}_N
  --downloads      where the archive and the decoded audio are kept (downloads)"

asr_data_dir=
fotaq_archive=
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
        --fotaq_archive) fotaq_archive=${value} ;;
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

options=(--downloads "${downloads}" --subset "${subset}")
if [ -n "${fotaq_archive}" ]; then
    options+=(--fotaq_archive "${fotaq_archive}")
fi
log "preparing FOTAQ (about 20 s and 300 MB once the archive is here)"
"${PYTHON:-python3}" "$(dirname "$0")/fotaq_prepare.py" "${options[@]}"
log "data preparation finished"
