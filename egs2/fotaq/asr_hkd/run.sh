#!/usr/bin/env bash
# FOTAQ: English game dialogue, 3.9 hours for training. The paper's four systems, and for
# comparison ESPnet's CTC/attention model (att) and a transducer:
#   ./run.sh --system cif|acd|lrd|hkd|att|transducer [--subset N] [any option of asr.sh]

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
subset=0
fotaq_archive=
take_options "system subset fotaq_archive" "$@"
choose system cif acd lrd hkd att transducer
find_system_config
decoding=conf/decode_asr.yaml
if [ "${system}" = transducer ]; then
    decoding=conf/decode_asr_transducer.yaml
fi
lang=en
name_subset
case "${fotaq_archive}" in
    "") ;;
    *[[:space:]]*) refuse "--fotaq_archive: asr.sh cannot pass a path with a blank" ;;
    *) local_data_opts+=" --fotaq_archive ${fotaq_archive}" ;;
esac

# The recordings have 11,025 Hz and are not resampled. There is no speed perturbation:
# the settings that learn fastest on two cores do without it.
exec ./asr.sh \
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
    --asr_config "${system_config}" \
    --lm_config conf/train_lm.yaml \
    --inference_config "${decoding}" \
    --train_set "${train_set}" \
    --valid_set "${valid_set}" \
    --test_sets "${test_sets}" \
    --bpe_train_text "data/${train_set}/text" \
    --lm_train_text "data/${train_set}/text" \
    --local_data_opts "${local_data_opts}" \
    ${options[@]+"${options[@]}"}
