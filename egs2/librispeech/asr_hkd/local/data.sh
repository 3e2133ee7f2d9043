#!/usr/bin/env bash
# Stage 1: find or download LibriSpeech and write the data folders. Works with ESPnet's
# own asr.sh and without an ESPnet checkout.

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

hours=960
lm_text=false
wordpiece=
incomplete=false
data_url=
remove_archive=false
begin_data "Usage: $0 [--hours 960|100] [--lm_text true|false] [--wordpiece CONFIG]
          [--incomplete true|false] [--data_url URL] [--remove_archive true|false]
  --hours           960: data/train_960, 100: data/train_clean_100
  --lm_text         true: also data/local/other_text/text for language models (1.5 GB)
  --wordpiece       a configuration: also data/wordpiece, the WordPieces of its teacher
  --incomplete      true: accept a part with fewer utterances than LibriSpeech has
  --data_url        where missing parts are downloaded from (not the text of --lm_text)
  --remove_archive  true: delete the archive of each part once it is unpacked
LIBRISPEECH, from the environment or db.sh, is the folder that contains (or will
contain) LibriSpeech; without it: downloads" \
    "hours lm_text wordpiece incomplete data_url remove_archive" "$@"

LIBRISPEECH=${LIBRISPEECH:-}
read_checkout LIBRISPEECH
corpus=${LIBRISPEECH:-downloads}

python=${PYTHON:-python3}
here=$(dirname "$0")
arguments=(--corpus "${corpus}" --hours "${hours}" --incomplete "${incomplete}")
arguments+=(--lm_text "${lm_text}" --remove_archive "${remove_archive}")
if [ -n "${data_url}" ]; then
    arguments+=(--data_url "${data_url}")
fi
log "preparing LibriSpeech, ${hours} hours, from ${corpus}"
"${python}" "${here}/librispeech_prepare.py" "${arguments[@]}"
if [ -n "${wordpiece}" ]; then
    "${python}" "${here}/wordpiece.py" --asr_config "${wordpiece}"
fi
# Not the folder of the corpus itself: speech models are put into downloads later.
# shellcheck disable=SC2016
declare_inputs '$LIBRISPEECH' "${corpus}/LibriSpeech" ${wordpiece:+"${wordpiece}"}
log "data preparation finished"
