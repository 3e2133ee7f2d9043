#!/usr/bin/env bash
# AISHELL-1: read Mandarin, 151 hours for training. The four systems of the paper, CIF with
# soft labels of language models of initials and finals, and of characters (soft), and CIF
# between a Whisper's encoder and decoder (whisper_decoder):
#   ./run.sh --system cif|acd|lrd|hkd|soft|whisper_decoder [--use_lm true]
#            [--asr_config FILE] [--whisper FOLDER] [any other option of asr.sh]
# --level_lm_args: further options of lm_train for these language models.
# --whisper: a multilingual Whisper of transformers, default downloads/whisper.

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
asr_config=
use_lm=false
data_url=
remove_archive=false
stage=1
stop_stage=10000
asr_args=
level_lm_args=
asr_tag=
feats_normalize=
whisper=downloads/whisper
take_options "system asr_config use_lm data_url remove_archive stage stop_stage asr_args \
    level_lm_args asr_tag feats_normalize whisper" "$@"
choose system cif acd lrd hkd soft whisper_decoder
find_system_config

inference_config=conf/decode_asr.yaml
if [ "${system}" = whisper_decoder ]; then
    check_whisper "${whisper}"
    # Whisper's decoder expects the values of Whisper's encoder.
    : "${feats_normalize:=none}"
    # asr.sh would name the experiment after the options of the model.
    : "${asr_tag:=whisper_decoder}"
    if [ "${use_lm}" != true ]; then
        inference_config=conf/decode_asr_whisper_decoder.yaml
    fi
fi
: "${feats_normalize:=utterance_mvn}"
if [ "${use_lm}" = true ]; then
    inference_config=conf/decode_asr_lm.yaml
fi
level_options=(
    --level_lm_config conf/train_lm_level.yaml
    --level_lm_args "${level_lm_args}"
    --lexicon_source pypinyin
    --unknown_words unk
)
local_data_opts="--remove_archive ${remove_archive}${data_url:+ --data_url ${data_url}}"

# Two GPUs as in the paper. Another number of GPUs does not change the batches (see the
# configuration). train.total_count.ave.pth is the average of the last ten epochs.
# The last call replaces this shell, so that asr.sh gets its signals.
last_call=
run_asr() {
    ${last_call:+exec} "${program[@]}" \
        --lang zh \
        --ngpu 2 \
        --nj 32 \
        --inference_nj 32 \
        --audio_format flac \
        --feats_type raw \
        --feats_normalize "${feats_normalize}" \
        --token_type char \
        --use_lm "${use_lm}" \
        --asr_config "${asr_config:-${system_config}}" \
        --asr_args "${asr_args}" \
        --lm_config conf/train_lm.yaml \
        --inference_config "${inference_config}" \
        --inference_asr_model train.total_count.ave.pth \
        --train_set train \
        --valid_set dev \
        --test_sets "dev test" \
        --lm_train_text data/train/text \
        --local_data_opts "${local_data_opts}" \
        ${asr_tag:+--asr_tag "${asr_tag}"} \
        ${options[@]+"${options[@]}"} \
        "$@"
}

if [ "${system}" = soft ]; then
    prepare_levels run_asr
fi
pretrained=()
if [ "${system}" = whisper_decoder ]; then
    folder=data/zh_token_list/char_whisper
    whisper_language=zh
    prepare_whisper_decoder run_asr "${whisper}" "${folder}" "" \
        data/zh_token_list/char/tokens.txt
    asr_args="$(whisper_sizes "${whisper}" "${folder}") ${asr_args}"
fi
last_call=yes
run_asr --stage "${stage}" --stop_stage "${stop_stage}" ${pretrained[@]+"${pretrained[@]}"}
