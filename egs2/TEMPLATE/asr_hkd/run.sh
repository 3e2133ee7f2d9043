#!/usr/bin/env bash
# A recipe for your own corpus: docs/own_corpus.md describes each step.
#   ./run.sh --system cif|hkd [--asr_config FILE] [any other option of asr.sh]

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

# Begin with cif, which needs no teacher. Set the teacher in
# conf/train_asr_cif_hkd.yaml before you use hkd.
system=cif
asr_config=
take_options "system asr_config" "$@"
choose system cif hkd
find_system_config

# What to change for your corpus:
#   --lang        a code for its language (en, zh, ...). It is part of folder names.
#   --ngpu        the number of GPUs for training; 0 trains on the CPU.
#   --nj          the number of processes for data preparation.
#   --fs          the sampling rate, the same as frontend_conf.fs in conf/train_*.yaml.
#                 Stage 3 resamples the audio to it.
#   --token_type  bpe for languages with an alphabet, char for Chinese or Japanese.
#   --nbpe        the number of BPE units: 500 for hours of speech, 5000 for hundreds.
#   --max_wav_duration  seconds: training leaves out longer utterances.
./asr.sh \
    --lang en \
    --ngpu 1 \
    --nj 4 \
    --inference_nj 4 \
    --fs 16k \
    --audio_format flac \
    --token_type bpe \
    --nbpe 500 \
    --feats_type raw \
    --feats_normalize utterance_mvn \
    --max_wav_duration 20 \
    --use_lm false \
    --asr_config "${asr_config:-${system_config}}" \
    --inference_config conf/decode_asr.yaml \
    --train_set train \
    --valid_set dev \
    --test_sets test \
    --bpe_train_text data/train/text \
    --lm_train_text data/train/text \
    ${options[@]+"${options[@]}"}
