#!/usr/bin/env bash
# Stage 1: write data/{train,dev,test} of your corpus. Works with ESPnet's own asr.sh
# and without an ESPnet checkout.
#
# Set CORPUS in db.sh and write list_utterances below; the rest can stay as it is.

set -e
set -u
set -o pipefail

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. "$(dirname "$0")/options.sh"

# list_utterances SET: prints one line for each utterance of SET (train, dev or test),
# with four columns and tabs between them:
#
#   utterance   a unique name without blanks that begins with the speaker: ann-0001
#   speaker     ann. If speakers are unknown, the name of the utterance again.
#   audio       the absolute path of a file, or a command that ends with "|"
#   text        the transcript as the model should write it: one case, numbers as words,
#               no punctuation unless the model should learn it
#
# No sentence should be in two sets. The order of lines is free. For example, if
# ${CORPUS}/transcripts.tsv has the columns utterance, speaker, set, file and text:
#
#   awk -F '\t' -v OFS='\t' -v set="$1" -v corpus="${CORPUS}" \
#       '$3 == set { print $1, $2, corpus "/" $4, $5 }' "${CORPUS}/transcripts.tsv"
list_utterances() {
    echo "error: local/data.sh is not filled in: write its function list_utterances" >&2
    return 2
}

begin_data "Usage: CORPUS=FOLDER $0" "" "$@"
CORPUS=${CORPUS:-}
read_checkout CORPUS
[ -d "${CORPUS}" ] || refuse "CORPUS='${CORPUS}': no such folder; set CORPUS in db.sh"

for set in train dev test; do
    folder=data/${set}
    mkdir -p "${folder}"
    list_utterances "${set}" > "${folder}/.utterances"
    # Kaldi's tables: sorted by the bytes of the first column.
    LC_ALL=C sort "${folder}/.utterances" |
        awk -F '\t' -v set="${set}" -v to="${folder}" '
            NF != 4 || $1 == "" || $2 == "" || $3 == "" {
                print "error: list_utterances " set ": four columns with tabs between" \
                    " them are needed, got: " $0 > "/dev/stderr"
                exit 2
            }
            {
                print $1, $2 > (to "/utt2spk")
                print $1, $3 > (to "/wav.scp")
                print $1, $4 > (to "/text")
                of[$2] = of[$2] " " $1
            }
            END { for (speaker in of) print speaker of[speaker] }' |
        LC_ALL=C sort > "${folder}/spk2utt"
    rm "${folder}/.utterances"
    [ -s "${folder}/spk2utt" ] || refuse "list_utterances ${set} printed no utterance"
    log "${folder}: $(wc -l < "${folder}/utt2spk") utterances"
done
log "data preparation finished"
