#!/usr/bin/env bash
# FOTAQ: English game dialogue, 3.9 hours for training. The paper's four systems, and
# for comparison ESPnet's CTC/attention model (att), transducers, also for streaming,
# CIF on frozen Whisper (whisper; whisper_bpe writes sub-words instead of letters), CIF
# between Whisper's encoder and decoder (whisper_decoder), and CIF with soft labels of
# language models of phones and letters (soft):
#   ./run.sh --system cif|acd|lrd|hkd|soft|att|transducer|transducer_streaming|whisper|
#                     whisper_hkd|whisper_soft|whisper_bpe|whisper_bpe_hkd|whisper_decoder
#            [--subset N] [--pretrain true [--unlabelled "FOLDER..."]]
#            [--pseudo_labels "FOLDER..." --labeller EXP] [--whisper_init true|false]
#            [any option of asr.sh]
# With --pretrain true the encoder first learns from two Whisper models (stages 10 and
# 11), then the system starts from it. --pretrain_config: --asr_config of this first
# training (conf/pretrain.yaml, or conf/pretrain_streaming.yaml); --pretrain_args: its
# --asr_args; --pretrain_tag: its --asr_tag. --unlabelled adds the speech of folders of
# audio files to it, which needs no transcripts. --level_lm_args: further options of
# lm_train for the language models of soft labels.
# --whisper_init false: the decoder of whisper_decoder begins with random parameters, for
# comparison.
# --pseudo_labels adds speech (folders, wav.scp) to the training set, with the text that a
# trained recogniser EXP (exp/asr_...) writes before stage 2. --labeller_args: its options
# of espnet-cif transcribe (--beam 5); --pseudo_tag: in the names of the set and of the
# training (pseudo); --pseudo_args: options of espnet-cif pseudo-labels.

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
subset=0
fotaq_archive=
pretrain=false
unlabelled=
pretrain_config=
pretrain_tag=
pretrain_args=
# Options of asr.sh that the training without transcripts needs, too.
stage=1
stop_stage=10000
asr_tag=
asr_exp=
asr_args=
dumpdir=
expdir=
train_set=
valid_set=
ngpu=0
feats_normalize=
asr_stats_dir=
speed_perturb_factors=
level_lm_args=
whisper_init=true
take_options "system subset fotaq_archive pretrain unlabelled pretrain_config
    pretrain_tag pretrain_args stage stop_stage asr_tag asr_exp asr_args dumpdir expdir
    train_set valid_set ngpu feats_normalize asr_stats_dir speed_perturb_factors
    level_lm_args whisper_init ${pseudo_options}" "$@"
choose pretrain true false
choose whisper_init true false
choose system cif acd lrd hkd soft att transducer whisper whisper_hkd whisper_soft \
    whisper_bpe whisper_bpe_hkd whisper_decoder transducer_streaming
case "${pretrain} ${system}" in
    "true whisper"*)
        refuse "--pretrain true --system ${system}: it reads Whisper instead of having" \
            "the encoder of a pre-training; choose another system"
        ;;
esac
if [ -n "${unlabelled}" ] && ! "${pretrain}"; then
    refuse "--unlabelled ${unlabelled}: only --pretrain true reads speech without" \
        "transcripts"
fi
if [ -n "${pretrain_config}" ] && ! "${pretrain}"; then
    refuse "--pretrain_config ${pretrain_config}: only --pretrain true reads it"
fi
for folder in ${unlabelled}; do
    [ -d "${folder}" ] || refuse "--unlabelled ${folder}: there is no such folder"
done
check_pseudo_labels
find_system_config
decoding=conf/decode_asr.yaml
units=(--token_type char)
pieces=8000 # of Whisper's tokenizer, for its decoder
case "${system}" in
    transducer*) decoding=conf/decode_asr_transducer.yaml ;;
    whisper_bpe*) units=(--token_type bpe --nbpe 300) ;;
    whisper_decoder)
        units=(--token_type bpe --nbpe "${pieces}" --bpemode bpe)
        decoding=conf/decode_asr_whisper_decoder.yaml
        ;;
esac
if [ "${system}" = transducer_streaming ]; then
    : "${pretrain_config:=conf/pretrain_streaming.yaml}"
    : "${feats_normalize:=global_mvn}"
fi
: "${pretrain_config:=conf/pretrain.yaml}"
[ -f "${pretrain_config}" ] ||
    refuse "--pretrain_config ${pretrain_config}: there is no such file"
: "${pretrain_tag:=$(basename "${pretrain_config}" .yaml)${unlabelled:+_unlabelled}}"
lang=en
name_subset
subset_levels
level_options=(
    --level_lm_config conf/train_lm_level.yaml
    --level_lm_args "${level_lm_args}"
    --lexicon_source cmudict
    --unknown_words guess
)
case "${fotaq_archive}" in
    "") ;;
    *[[:space:]]*) refuse "--fotaq_archive: asr.sh cannot pass a path with a blank" ;;
    *) local_data_opts+=" --fotaq_archive ${fotaq_archive}" ;;
esac

# Speech models that a system needs, converted to downloads/.
speech_models=()
case "${system}" in
    # Whisper's decoder expects the values of Whisper's encoder.
    whisper_decoder) : "${feats_normalize:=none}" ;;
    whisper*)
        speech_models+=(whisper-base)
        # The mean of a short utterance is too uncertain for features of Whisper. Their
        # statistics are not those of the other systems' features.
        : "${feats_normalize:=global_mvn}"
        stats=whisper
        case "${system}" in
            whisper_bpe*) stats=whisper_bpe ;;
        esac
        : "${asr_stats_dir:=${expdir}/asr_stats_${stats}}"
        ;;
esac
: "${feats_normalize:=utterance_mvn}"
suffix=${speed_perturb_factors:+_sp}
# The name that asr.sh gives to the statistics of letters.
letter_stats=${expdir}/asr_stats_raw_${lang}_char${suffix}
if [ -n "${unlabelled}" ] && [ "${feats_normalize}" = global_mvn ]; then
    # Both trainings read these statistics.
    : "${asr_stats_dir:=${letter_stats}}"
fi
if "${pretrain}"; then
    speech_models+=(whisper-base whisper-tiny.en)
fi

# The recordings have 11,025 Hz and are not resampled. There is no speed perturbation:
# the settings that learn fastest on two cores do without it.
# The last call replaces this shell, so that asr.sh gets its signals.
last_call=
run_asr() {
    ${last_call:+exec} "${program[@]}" \
        --lang "${lang}" \
        --ngpu "${ngpu}" \
        --nj 2 \
        --inference_nj 2 \
        --fs 11025 \
        --audio_format flac \
        "${units[@]}" \
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
        ${speed_perturb_factors:+--speed_perturb_factors "${speed_perturb_factors}"} \
        ${options[@]+"${options[@]}"} \
        "$@"
}

add_pseudo_labels run_asr "${letter_stats}"

pretrained=()
if [ "${system}" = whisper_decoder ]; then
    folder=data/${lang}_token_list/bpe_bpe${pieces}
    whisper_language=en
    prepare_whisper_decoder run_asr downloads/whisper_base "${folder}" "${pieces}" \
        "data/${complete_set}/text" \
        local/speech_teacher.sh whisper-base downloads/whisper_base tokenizer
fi

if [ "${stage}" -le 11 ] && [ "${stop_stage}" -ge 10 ]; then
    for model in ${speech_models[@]+"${speech_models[@]}"}; do
        name=${model//[-.]/_}
        local/speech_teacher.sh "${model}" "downloads/${name}"
    done
fi
exp=(${asr_exp:+--asr_exp "${asr_exp}"})
tag=(${asr_tag:+--asr_tag "${asr_tag}"} ${exp[@]+"${exp[@]}"})
if ! "${pretrain}"; then
    case "${system}" in
        *soft) prepare_levels run_asr ${tag[@]+"${tag[@]}"} ;;
    esac
    last_call=yes
    run_asr --stage "${stage}" --stop_stage "${stop_stage}" ${tag[@]+"${tag[@]}"} \
        ${pretrained[@]+"${pretrained[@]}"}
fi

# The training of stage 11 on the training set and other speech.
pretrain_unlabelled() {
    local raw=${dumpdir}/raw
    local all=${raw}/unlabelled${suffix}
    read_checkout
    # shellcheck disable=SC2086
    "${PYTHON:-python3}" local/fotaq_unlabelled.py --target "${all}" \
        --data_dir "${raw}/${train_set}${suffix}" --audio ${unlabelled}
    # shellcheck disable=SC2086
    pretrain_audio "${pretrain_config}" "${encoder%/*}" "${all}" "${raw}/${valid_set}" \
        "${asr_stats_dir}" ${pretrain_args}
}

encoder=${expdir}/asr_${pretrain_tag}/valid.loss.ave.pth
if [ "${stage}" -le 11 ] && [ "${stop_stage}" -ge 10 ]; then
    last=$((stop_stage < 11 ? stop_stage : 11))
    if [ -n "${unlabelled}" ] && [ "${last}" -eq 11 ]; then
        last=10
    fi
    if [ "${stage}" -le "${last}" ]; then
        run_asr --stage "${stage}" --stop_stage "${last}" --asr_tag "${pretrain_tag}" \
            --asr_config "${pretrain_config}" --asr_args "${pretrain_args}"
    fi
    if [ "${stop_stage}" -lt 11 ]; then
        exit
    fi
    if [ -n "${unlabelled}" ]; then
        pretrain_unlabelled
    fi
    stage=$((stage < 10 ? 10 : stage))
fi
case "${system}" in
    *soft) prepare_levels run_asr ;;
esac
last_call=yes
run_asr --stage "${stage}" --stop_stage "${stop_stage}" \
    --asr_tag "${asr_tag:-${system}_${pretrain_tag}}" ${exp[@]+"${exp[@]}"} \
    --pretrained_model "${encoder}:encoder:encoder"
