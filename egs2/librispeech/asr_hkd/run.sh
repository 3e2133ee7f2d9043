#!/usr/bin/env bash
# LibriSpeech: English audiobooks, 960 or 100 hours for training. The four systems:
#   ./run.sh --system cif|acd|lrd|hkd [--hours 960|100] [--units bpe|wordpiece]
#            [--asr_config FILE] [any other option of asr.sh]

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
hours=960
units=bpe
asr_config=
asr_args=
use_lm=false
incomplete=false
data_url=
remove_archive=
take_options "system hours units asr_config asr_args use_lm incomplete data_url
    remove_archive" "$@"
choose system cif acd lrd hkd
choose hours 960 100
choose units bpe wordpiece
find_system_config

lang=en
dumpdir=dump
expdir=exp
if [ "${hours}" = 960 ]; then
    train_set=train_960
else
    # Separate names for everything, so that two training sets never share a token list,
    # statistics or a checkpoint.
    train_set=train_clean_100
    lang=en_100
    dumpdir=dump/100h
    expdir=exp/100h
    # A third of the updates: 250 passes over the data. asr.sh names the experiment
    # after these arguments.
    asr_args="--max_epoch 248 --scheduler_conf max_steps=80000 ${asr_args}"
fi

local_data_opts="--hours ${hours} --lm_text ${use_lm} --incomplete ${incomplete}"
local_data_opts+="${data_url:+ --data_url ${data_url}}"
local_data_opts+="${remove_archive:+ --remove_archive ${remove_archive}}"
if [ "${units}" = bpe ]; then
    asr_config=${asr_config:-${system_config}}
    unit_options=(--token_type bpe --nbpe 5000)
else
    if [ "${system}" != hkd ] && [ -z "${asr_config}" ]; then
        refuse "--units wordpiece --system ${system}: there is a configuration for" \
            "hkd only; name yours with --asr_config"
    fi
    if [ "${use_lm}" = true ]; then
        refuse "--units wordpiece --use_lm true: ESPnet trains no language model on" \
            "such tokens; use --units bpe"
    fi
    asr_config=${asr_config:-conf/train_asr_cif_hkd_wordpiece.yaml}
    local_data_opts+=" --wordpiece ${asr_config}"
    unit_options=(
        --token_type hugging_face
        --hugging_face_model_name_or_path data/wordpiece
    )
fi

# The text for language models is downloaded only for --use_lm true.
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
