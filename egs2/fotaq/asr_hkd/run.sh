#!/usr/bin/env bash
# FOTAQ: English game dialogue, 3.9 hours for training. One of four systems:
#   ./run.sh --system cif|acd|lrd|hkd [--subset N] [any option of asr.sh]
# or ESPnet's own CTC/attention model beside them, --system att.

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

system=hkd
subset=0
fotaq_archive=
options=()

while [ $# -gt 0 ]; do
    case "$1" in
        --system | --subset | --fotaq_archive)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        --system=* | --subset=* | --fotaq_archive=*)
            name=${1%%=*}
            printf -v "${name#--}" '%s' "${1#*=}"
            shift ;;
        *) options+=("$1"); shift ;;
    esac
done

case "${system}" in
    cif | att) asr_config=conf/train_asr_${system}.yaml ;;
    acd | lrd | hkd) asr_config=conf/train_asr_cif_${system}.yaml ;;
    *)
        echo "error: --system ${system}: choose cif, acd, lrd, hkd or att" >&2
        exit 2 ;;
esac
case "${subset}" in
    *[!0-9]* | "")
        echo "error: --subset ${subset}: give a number of training utterances" >&2
        exit 2 ;;
esac

train_set=train
valid_set=dev
test_sets="dev test"
lang=en
dumpdir=dump
expdir=exp
local_data_opts=
if [ "${subset}" -gt 0 ]; then
    # A name of its own for everything, so that a subset and the whole corpus never
    # share a token list, statistics or a checkpoint.
    train_set=train_${subset}
    valid_set=dev_${subset}
    test_sets=test_${subset}
    lang=en_${subset}
    dumpdir=dump/subset_${subset}
    expdir=exp/subset_${subset}
    local_data_opts="--subset ${subset}"
fi
if [ -n "${fotaq_archive}" ]; then
    case "${fotaq_archive}" in
        *[[:space:]]*)
            echo "error: --fotaq_archive: asr.sh cannot pass on a path with a blank" >&2
            exit 2 ;;
    esac
    local_data_opts+=" --fotaq_archive ${fotaq_archive}"
fi

# The recordings are at 11,025 Hz and stay so. Speed perturbation is left out because
# the settings known to learn fastest on two cores did without it.
./asr.sh \
    --lang "${lang}" \
    --ngpu 0 \
    --nj 2 \
    --inference_nj 2 \
    --fs 11025 \
    --audio_format flac \
    --token_type char \
    --feats_type raw \
    --feats_normalize utterance_mvn \
    --max_wav_duration 20 \
    --use_lm false \
    --dumpdir "${dumpdir}" \
    --expdir "${expdir}" \
    --asr_config "${asr_config}" \
    --lm_config conf/train_lm.yaml \
    --inference_config conf/decode_asr.yaml \
    --train_set "${train_set}" \
    --valid_set "${valid_set}" \
    --test_sets "${test_sets}" \
    --bpe_train_text "data/${train_set}/text" \
    --lm_train_text "data/${train_set}/text" \
    --local_data_opts "${local_data_opts}" \
    ${options[@]+"${options[@]}"}
