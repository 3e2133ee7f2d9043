#!/usr/bin/env bash
# LibriSpeech: English audiobooks, 960 or 100 hours for training. One of four systems:
#   ./run.sh --system cif|acd|lrd|hkd [--hours 960|100] [--units bpe|wordpiece]
#            [--asr_config FILE] [any other option of asr.sh]

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

system=hkd
hours=960
units=bpe
asr_config=
asr_args=
use_lm=false
incomplete=false
data_url=
remove_archive=
options=()

while [ $# -gt 0 ]; do
    case "$1" in
        --system | --hours | --units | --asr_config | --asr_args | --use_lm | \
            --incomplete | --data_url | --remove_archive)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        --system=* | --hours=* | --units=* | --incomplete=* | --data_url=* | \
            --remove_archive=*)
            name=${1%%=*}
            printf -v "${name#--}" '%s' "${1#*=}"
            shift ;;
        *) options+=("$1"); shift ;;
    esac
done

case "${system}" in
    cif) system_config=conf/train_asr_cif.yaml ;;
    acd | lrd | hkd) system_config=conf/train_asr_cif_${system}.yaml ;;
    *)
        echo "error: --system ${system}: choose cif, acd, lrd or hkd" >&2
        exit 2 ;;
esac
lang=en
dumpdir=dump
expdir=exp
case "${hours}" in
    960) train_set=train_960 ;;
    100)
        train_set=train_clean_100
        # A name of its own for everything, so that two training sets never share a
        # token list, statistics or a checkpoint.
        lang=en_100
        dumpdir=dump/100h
        expdir=exp/100h
        # A third of the updates, 250 times through the data. asr.sh names the
        # experiment after these arguments.
        asr_args="--max_epoch 248 --scheduler_conf max_steps=80000 ${asr_args}" ;;
    *)
        echo "error: --hours ${hours}: choose 960 or 100" >&2
        exit 2 ;;
esac

local_data_opts="--hours ${hours} --lm_text ${use_lm} --incomplete ${incomplete}"
local_data_opts+="${data_url:+ --data_url ${data_url}}"
local_data_opts+="${remove_archive:+ --remove_archive ${remove_archive}}"
case "${units}" in
    bpe) unit_options=(--token_type bpe --nbpe 5000) ;;
    wordpiece)
        if [ "${system}" != hkd ] && [ -z "${asr_config}" ]; then
            echo "error: --units wordpiece --system ${system}: there is a configuration" \
                "for hkd only; name yours with --asr_config" >&2
            exit 2
        fi
        if [ "${use_lm}" = true ]; then
            echo "error: --units wordpiece --use_lm true: ESPnet's language models know" \
                "no such tokens; use --units bpe" >&2
            exit 2
        fi
        system_config=conf/train_asr_cif_hkd_wordpiece.yaml
        unit_options=(
            --token_type hugging_face
            --hugging_face_model_name_or_path data/wordpiece
        ) ;;
    *)
        echo "error: --units ${units}: choose bpe or wordpiece" >&2
        exit 2 ;;
esac
asr_config=${asr_config:-${system_config}}
if [ "${units}" = wordpiece ]; then
    local_data_opts+=" --wordpiece ${asr_config}"
fi

# The text for language models is fetched only for those who train one.
lm_train_text=data/${train_set}/text
inference_config=conf/decode_asr.yaml
if [ "${use_lm}" = true ]; then
    lm_train_text+=" data/local/other_text/text"
    inference_config=conf/decode_asr_lm.yaml
fi

./asr.sh \
    --lang "${lang}" \
    --ngpu 4 \
    --nj 32 \
    --inference_nj 32 \
    --dumpdir "${dumpdir}" \
    --expdir "${expdir}" \
    --audio_format flac \
    --feats_type raw \
    --feats_normalize utterance_mvn \
    --max_wav_duration 30 \
    --use_lm "${use_lm}" \
    "${unit_options[@]}" \
    --asr_config "${asr_config}" \
    --asr_args "${asr_args}" \
    --lm_config conf/train_lm.yaml \
    --inference_config "${inference_config}" \
    --inference_asr_model train.total_count.ave.pth \
    --train_set "${train_set}" \
    --valid_set dev \
    --test_sets "test_clean test_other dev_clean dev_other" \
    --bpe_train_text "data/${train_set}/text" \
    --lm_train_text "${lm_train_text}" \
    --local_data_opts "${local_data_opts}" \
    ${options[@]+"${options[@]}"}
