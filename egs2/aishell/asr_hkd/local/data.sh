#!/usr/bin/env bash
# Stage 1: find or download AISHELL-1 and write data/{train,dev,test}. Works with
# ESPnet's own asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

remove_archive=false
data_url=
begin_data "Usage: $0 [--remove_archive true|false] [--data_url URL]
  --remove_archive  delete data_aishell.tgz (15.6 GB) once it is unpacked (false)
  --data_url        a mirror of https://www.openslr.org/resources/33
The corpus is in the folder AISHELL, a variable of the environment or of db.sh. If that
folder has no corpus, it is downloaded there." "remove_archive data_url" "$@"
choose remove_archive true false

AISHELL=${AISHELL:-}
read_checkout AISHELL
arguments=(--corpus "${AISHELL:-downloads}")
if [ -n "${data_url}" ]; then
    arguments+=(--data_url "${data_url}")
fi
if [ "${remove_archive}" = true ]; then
    arguments+=(--remove_archive)
fi
"${PYTHON:-python3}" "$(dirname "$0")/aishell_prepare.py" "${arguments[@]}"
log "data preparation finished"
