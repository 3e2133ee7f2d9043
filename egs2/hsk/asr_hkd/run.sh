#!/usr/bin/env bash
# HSK: synthetic Mandarin sentences, joined from recorded syllables. The four systems:
#   ./run.sh --system cif|acd|lrd|hkd [--subset N] [any option of asr.sh]

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
subset=0
take_options "system subset" "$@"
choose system cif acd lrd hkd
find_system_config
lang=zh
name_subset

# No speed perturbation: stage 1 already varies tempo and pitch.
./asr.sh \
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
    --lm_config conf/train_lm.yaml \
    --inference_config conf/decode_asr.yaml \
    --train_set "${train_set}" \
    --valid_set "${valid_set}" \
    --test_sets "${test_sets}" \
    --bpe_train_text "data/${train_set}/text" \
    --lm_train_text "data/${train_set}/text" \
    --local_data_opts "${local_data_opts}" \
    ${options[@]+"${options[@]}"}
