#!/usr/bin/env bash
# HSK: synthetic Mandarin sentences, joined from recorded syllables. The four systems, and
# CIF with soft labels of language models of initials and finals, and of characters (soft):
#   ./run.sh --system cif|acd|lrd|hkd|soft [--subset N]
#            [--pseudo_labels "FOLDER..." --labeller EXP] [any option of asr.sh]
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
take_options "system subset stage stop_stage asr_args dumpdir expdir asr_tag
    asr_stats_dir train_set valid_set level_lm_args ${pseudo_options}" "$@"
choose system cif acd lrd hkd soft
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
        --feats_normalize utterance_mvn \
        --max_wav_duration 20 \
        --use_lm false \
        --dumpdir "${dumpdir}" \
        --expdir "${expdir}" \
        --asr_config "${system_config}" \
        --asr_args "${asr_args}" \
        --lm_config conf/train_lm.yaml \
        --inference_config conf/decode_asr.yaml \
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
last_call=yes
run_asr --stage "${stage}" --stop_stage "${stop_stage}"
