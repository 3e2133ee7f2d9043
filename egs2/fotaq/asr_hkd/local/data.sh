#!/usr/bin/env bash
# Stage 1: download FOTAQ and write data/{train,dev,test}. Works with ESPnet's own
# asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

fotaq_archive=
subset=0
downloads=downloads
begin_data "Usage: $0 [--fotaq_archive PATH] [--subset N] [--downloads DIR]
  --fotaq_archive  queen.1c of the freeware CD version, or the Debian package
  --subset         N training utterances, in data/{train,dev,test}_N
  --downloads      where the archive and the decoded audio are kept (downloads)" \
    "fotaq_archive subset downloads" "$@"

read_checkout
arguments=(--downloads "${downloads}" --subset "${subset}")
if [ -n "${fotaq_archive}" ]; then
    arguments+=(--fotaq_archive "${fotaq_archive}")
fi
log "preparing FOTAQ (about 20 s and 300 MB once the archive is downloaded)"
"${PYTHON:-python3}" "$(dirname "$0")/fotaq_prepare.py" "${arguments[@]}"
# Not the folder itself: speech models are put there later.
declare_inputs "${downloads}/queen.1c" "${downloads}/flac" \
    ${fotaq_archive:+"${fotaq_archive}"}
log "data preparation finished"
