#!/usr/bin/env bash
# HSK: synthetic Mandarin sentences, joined from recorded syllables. The four systems, CIF
# with soft labels of language models of initials and finals, and of characters (soft), and
# CIF between Whisper's encoder and decoder (whisper_decoder):
#   ./run.sh --system cif|acd|lrd|hkd|soft|whisper_decoder [--subset N]
#            [--pseudo_labels "FOLDER..." --labeller EXP] [any option of asr.sh]
# --whisper_init false: the decoder of whisper_decoder begins with random parameters, for
# comparison.
# --level_lm_args: further options of lm_train for these language models.
# --pseudo_labels adds speech (folders, wav.scp) to the training set, with the text that a
# trained recogniser EXP (exp/asr_...) writes before stage 2: see docs/pseudo_labels.md.

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
subset=0
stage=1
stop_stage=10000
asr_args=
dumpdir=
expdir=
asr_tag=
asr_stats_dir=
train_set=
valid_set=
level_lm_args=
whisper_init=true
feats_normalize=
take_options "system subset stage stop_stage asr_args dumpdir expdir asr_tag
    asr_stats_dir train_set valid_set level_lm_args whisper_init feats_normalize
    ${pseudo_options}" "$@"
choose system cif acd lrd hkd soft whisper_decoder
choose whisper_init true false
check_pseudo_labels
find_system_config
lang=zh
name_subset
subset_levels
level_options=(
    --level_lm_config conf/train_lm_level.yaml
    --level_lm_args "${level_lm_args}"
    --lexicon_source pypinyin
    --unknown_words unk
)

decoding=conf/decode_asr.yaml
if [ "${system}" = whisper_decoder ]; then
    # Whisper's decoder expects the values of Whisper's encoder.
    : "${feats_normalize:=none}"
    decoding=conf/decode_asr_whisper_decoder.yaml
fi
: "${feats_normalize:=utterance_mvn}"

# No speed perturbation: stage 1 already varies tempo and pitch.
# The last call replaces this shell, so that asr.sh gets its signals.
last_call=
run_asr() {
    ${last_call:+exec} "${program[@]}" \
        --lang "${lang}" \
        --ngpu 0 \
        --nj 2 \
        --inference_nj 2 \
        --fs 16k \
        --audio_format flac \
        --token_type char \
        --feats_type raw \
        --feats_normalize "${feats_normalize}" \
        --max_wav_duration 20 \
        --use_lm false \
        --dumpdir "${dumpdir}" \
        --expdir "${expdir}" \
        --asr_config "${system_config}" \
        --asr_args "${asr_args}" \
        --lm_config conf/train_lm.yaml \
        --inference_config "${decoding}" \
        --train_set "${train_set}" \
        --valid_set "${valid_set}" \
        --test_sets "${test_sets}" \
        --bpe_train_text "data/${complete_set}/text" \
        --lm_train_text "data/${complete_set}/text" \
        --local_data_opts "${local_data_opts}" \
        ${asr_stats_dir:+--asr_stats_dir "${asr_stats_dir}"} \
        ${asr_tag:+--asr_tag "${asr_tag}"} \
        ${options[@]+"${options[@]}"} \
        "$@"
}

add_pseudo_labels run_asr "${expdir}/asr_stats_raw_${lang}_char"
if [ "${system}" = soft ]; then
    prepare_levels run_asr
fi
pretrained=()
if [ "${system}" = whisper_decoder ]; then
    folder=data/${lang}_token_list/char_whisper
    whisper_language=zh
    prepare_whisper_decoder run_asr downloads/whisper_base "${folder}" "" \
        "data/${lang}_token_list/char/tokens.txt" \
        local/speech_teacher.sh whisper-base downloads/whisper_base tokenizer
fi
last_call=yes
run_asr --stage "${stage}" --stop_stage "${stop_stage}" ${pretrained[@]+"${pretrained[@]}"}
