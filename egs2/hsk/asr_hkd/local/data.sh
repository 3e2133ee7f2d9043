#!/usr/bin/env bash
# Stage 1: download sentences and syllables, synthesise the speech and write
# data/{train,dev,test}. Works with ESPnet's own asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

subset=0
downloads=downloads
begin_data "Usage: $0 [--subset N] [--downloads DIR]
  --subset     N training sentences, in data/{train,dev,test}_N
  --downloads  where the packages and the synthesised audio are kept (downloads)" \
    "subset downloads" "$@"

read_checkout
log "preparing the HSK sentences (9 MB to download)"
"${PYTHON:-python3}" "$(dirname "$0")/hsk_prepare.py" \
    --downloads "${downloads}" --subset "${subset}"
log "data preparation finished"
