#!/usr/bin/env bash
# AISHELL-1: read Mandarin, 151 hours for training. The four systems of the paper:
#   ./run.sh --system cif|acd|lrd|hkd [--use_lm true] [--asr_config FILE]
#            [any other option of asr.sh]

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
take_options "system asr_config use_lm data_url remove_archive" "$@"
choose system cif acd lrd hkd
find_system_config

inference_config=conf/decode_asr.yaml
if [ "${use_lm}" = true ]; then
    inference_config=conf/decode_asr_lm.yaml
fi
local_data_opts="--remove_archive ${remove_archive}${data_url:+ --data_url ${data_url}}"

# Two GPUs as in the paper. Another number of GPUs does not change the batches (see the
# configuration). train.total_count.ave.pth is the average of the last ten epochs.
./asr.sh \
    --lang zh \
    --ngpu 2 \
    --nj 32 \
    --inference_nj 32 \
    --audio_format flac \
    --feats_type raw \
    --feats_normalize utterance_mvn \
    --token_type char \
    --use_lm "${use_lm}" \
    --asr_config "${asr_config:-${system_config}}" \
    --lm_config conf/train_lm.yaml \
    --inference_config "${inference_config}" \
    --inference_asr_model train.total_count.ave.pth \
    --train_set train \
    --valid_set dev \
    --test_sets "dev test" \
    --lm_train_text data/train/text \
    --local_data_opts "${local_data_opts}" \
    ${options[@]+"${options[@]}"}
