#!/usr/bin/env bash
# Stage 1: find or fetch LibriSpeech and write the data folders. Works with ESPnet's own
# asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[0]##*/}) $*"
}

usage="Usage: $0 [--hours 960|100] [--lm_text true|false] [--wordpiece CONFIG]
          [--incomplete true|false] [--data_url URL] [--remove_archive true|false]
  --hours           960: data/train_960, 100: data/train_clean_100
  --lm_text         true: also data/local/other_text/text for language models (1.5 GB)
  --wordpiece       a training configuration: also data/wordpiece, its teacher's WordPieces
  --incomplete      true: go on if a part has fewer utterances than LibriSpeech has
  --data_url        where missing parts come from (not the text of --lm_text)
  --remove_archive  true: delete the archive of each part that has been read
LIBRISPEECH, from the environment or db.sh, is the folder that contains (or will
contain) LibriSpeech; without it: downloads"

asr_data_dir=
hours=960
lm_text=false
wordpiece=
incomplete=false
data_url=
remove_archive=false

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
        --hours) hours=${value} ;;
        --lm_text) lm_text=${value} ;;
        --wordpiece) wordpiece=${value} ;;
        --incomplete) incomplete=${value} ;;
        --data_url) data_url=${value} ;;
        --remove_archive) remove_archive=${value} ;;
        *) echo "error: $0 has no option ${name}" >&2; exit 2 ;;
    esac
done

if [ -n "${asr_data_dir}" ]; then
    log "nothing to do for ${asr_data_dir}: post-processing is not needed here"
    exit 0
fi

# Scripts of ESPnet use variables that may be unset; and the environment's LIBRISPEECH
# goes before that of db.sh.
set +u
corpus=${LIBRISPEECH}
if [ -z "${corpus}" ] && [ -f ./db.sh ]; then
    # shellcheck disable=SC1091
    . ./db.sh
    corpus=${LIBRISPEECH}
fi
# Without ESPNET_ROOT a path.sh may be left over from a checkout that has gone since.
if [ -n "${ESPNET_ROOT:-}" ] && [ -e ./path.sh ]; then
    # shellcheck disable=SC1091
    . ./path.sh
fi
set -u
corpus=${corpus:-downloads}

python=${PYTHON:-python3}
here=$(dirname "$0")
options=(--corpus "${corpus}" --hours "${hours}" --incomplete "${incomplete}")
options+=(--lm_text "${lm_text}" --remove_archive "${remove_archive}")
if [ -n "${data_url}" ]; then
    options+=(--data_url "${data_url}")
fi
log "preparing LibriSpeech, ${hours} hours, from ${corpus}"
"${python}" "${here}/librispeech_prepare.py" "${options[@]}"
if [ -n "${wordpiece}" ]; then
    "${python}" "${here}/wordpiece.py" --asr_config "${wordpiece}"
fi
log "data preparation finished"
