#!/usr/bin/env bash
# LibriSpeech: English audiobooks, 960 or 100 hours for training. The four systems, and
# CIF with soft labels of language models of phones and BPE units (soft, 100 hours):
#   ./run.sh --system cif|acd|lrd|hkd|soft [--hours 960|100] [--units bpe|wordpiece]
#            [--asr_config FILE] [any other option of asr.sh]
# --level_lm_args: further options of lm_train for these language models.
# and transducers for 100 hours, from scratch or from an encoder that speech teachers
# taught (stages 10 and 11 of conf/pretrain*_100.yaml):
#   ./run.sh --system transducer|transducer_streaming [--pretrain true]
#            [--unlabelled true] [any option of asr.sh]
# and CIF between the encoder and the decoder of a Whisper, a folder for transformers:
#   ./run.sh --system whisper_decoder [--hours 100|960] [--whisper FOLDER]
#            [--whisper_language en|none] [any option of asr.sh]
# --whisper_language none: for a Whisper of English alone.
# --unlabelled true adds the audio of the other 860 hours to this first training.
# --pretrain_args: its --asr_args; --pretrain_tag: its --asr_tag.
# --pseudo_labels "FOLDER..." --labeller EXP adds speech (folders, wav.scp) to the training
# set, with the text that a trained recogniser writes: see docs/pseudo_labels.md.

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=egs2/TEMPLATE/asr_hkd/local/options.sh
. local/options.sh

system=hkd
hours=
units=bpe
asr_config=
asr_args=
use_lm=false
incomplete=false
data_url=
remove_archive=
pretrain=false
unlabelled=false
pretrain_tag=
pretrain_args=
# Options of asr.sh that the training without transcripts needs, too.
stage=1
stop_stage=10000
asr_tag=
asr_exp=
dumpdir=
expdir=
ngpu=4
feats_normalize=
asr_stats_dir=
nbpe=
speed_perturb_factors=
level_lm_args=
whisper=downloads/whisper
whisper_language=en
bpemode=unigram
take_options "system hours units asr_config asr_args use_lm incomplete data_url
    remove_archive pretrain unlabelled pretrain_tag pretrain_args stage stop_stage
    asr_tag asr_exp dumpdir expdir ngpu nbpe feats_normalize asr_stats_dir
    speed_perturb_factors level_lm_args whisper whisper_language ${pseudo_options}" "$@"
choose system cif acd lrd hkd soft transducer transducer_streaming whisper_decoder
check_pseudo_labels
choose pretrain true false
choose unlabelled true false
choose units bpe wordpiece
transducer=false
case "${system}" in transducer*) transducer=true ;; esac
if "${transducer}"; then
    hours=${hours:-100}
    if [ "${hours}" != 100 ]; then
        refuse "--system ${system} --hours ${hours}: its configurations are for --hours 100"
    fi
    if [ "${units}" != bpe ]; then
        refuse "--system ${system} --units ${units}: use --units bpe"
    fi
    system_config=conf/train_asr_${system}_100.yaml
else
    case "${system}" in
        soft | whisper_decoder) hours=${hours:-100} ;;
    esac
    hours=${hours:-960}
    choose hours 960 100
    find_system_config
    if "${pretrain}"; then
        refuse "--pretrain true --system ${system}: there are encoders for the systems" \
            "transducer and transducer_streaming only"
    fi
fi
if [ "${system}" = whisper_decoder ]; then
    if [ "${units}" != bpe ]; then
        refuse "--system whisper_decoder --units ${units}: its units are Whisper's; leave" \
            "--units out"
    fi
    check_whisper "${whisper}"
    if [ "${whisper_language}" = none ]; then
        whisper_language=
    fi
fi
if "${unlabelled}" && ! "${pretrain}"; then
    refuse "--unlabelled true: only --pretrain true reads speech without transcripts"
fi

lang=en
if [ "${hours}" = 960 ]; then
    train_set=train_960
else
    # Separate names for everything, so that two training sets never share a token list,
    # statistics or a checkpoint.
    train_set=train_clean_100
    lang=en_100
    : "${dumpdir:=dump/100h}" "${expdir:=exp/100h}"
fi
: "${dumpdir:=dump}" "${expdir:=exp}"
if [ "${system}" = whisper_decoder ]; then
    # asr.sh would name the experiment after the options of the model.
    : "${asr_tag:=whisper_decoder}"
elif [ "${hours}" = 100 ] && ! "${transducer}"; then
    # A third of the updates: 250 passes over the data. asr.sh names the experiment
    # after these arguments.
    asr_args="--max_epoch 248 --scheduler_conf max_steps=80000 ${asr_args}"
fi

subset_levels
level_options=(
    --level_lm_config conf/train_lm_level.yaml
    --level_lm_args "${level_lm_args}"
    --lexicon_source cmudict
    --unknown_words guess
)

# Stage 1 of 960 hours also writes the folders of all parts.
data_hours=${hours}
if "${unlabelled}"; then
    data_hours=960
fi
local_data_opts="--hours ${data_hours} --lm_text ${use_lm} --incomplete ${incomplete}"
local_data_opts+="${data_url:+ --data_url ${data_url}}"
local_data_opts+="${remove_archive:+ --remove_archive ${remove_archive}}"
if [ "${units}" = bpe ]; then
    asr_config=${asr_config:-${system_config}}
    if "${transducer}"; then
        nbpe=${nbpe:-500}   # the logits of a transducer grow with the vocabulary
    fi
    if [ "${system}" = whisper_decoder ]; then
        nbpe=${nbpe:-8000}  # of Whisper's pieces
        bpemode=bpe
    fi
    nbpe=${nbpe:-5000}
    unit_options=(--token_type bpe --nbpe "${nbpe}" --bpemode "${bpemode}")
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
transcribed=${train_set}
lm_train_text=data/${transcribed}/text
inference_config=conf/decode_asr.yaml
if "${transducer}"; then
    inference_config=conf/decode_asr_transducer.yaml
elif [ "${use_lm}" = true ]; then
    inference_config=conf/decode_asr_lm.yaml
elif [ "${system}" = whisper_decoder ]; then
    inference_config=conf/decode_asr_whisper_decoder.yaml
fi
if [ "${use_lm}" = true ]; then
    lm_train_text+=" data/local/other_text/text"
fi

if [ "${system}" = transducer_streaming ]; then
    feats_normalize=${feats_normalize:-global_mvn}
elif [ "${system}" = whisper_decoder ]; then
    # Whisper's decoder expects the values of Whisper's encoder.
    feats_normalize=${feats_normalize:-none}
else
    feats_normalize=${feats_normalize:-utterance_mvn}
fi

# The last call replaces this shell, so that asr.sh gets its signals.
last_call=
run_asr() {
    ${last_call:+exec} "${program[@]}" \
        --lang "${lang}" \
        --ngpu "${ngpu}" \
        --nj 32 \
        --inference_nj 32 \
        --dumpdir "${dumpdir}" \
        --expdir "${expdir}" \
        --audio_format flac \
        --feats_type raw \
        --feats_normalize "${feats_normalize}" \
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
        --bpe_train_text "data/${transcribed}/text" \
        --lm_train_text "${lm_train_text}" \
        --local_data_opts "${local_data_opts}" \
        ${asr_stats_dir:+--asr_stats_dir "${asr_stats_dir}"} \
        ${speed_perturb_factors:+--speed_perturb_factors "${speed_perturb_factors}"} \
        ${options[@]+"${options[@]}"} \
        "$@"
}

# The name that asr.sh gives to the statistics.
unit=${nbpe:+bpe${nbpe}}
suffix=${speed_perturb_factors:+_sp}
default_stats=${expdir}/asr_stats_raw_${lang}_${unit:-hugging_face}${suffix}
add_pseudo_labels run_asr "${default_stats}"
exp=(${asr_exp:+--asr_exp "${asr_exp}"})
tag=(${asr_tag:+--asr_tag "${asr_tag}"} ${exp[@]+"${exp[@]}"})
pretrained=()
if [ "${system}" = whisper_decoder ]; then
    folder=data/${lang}_token_list/bpe_bpe${nbpe}
    prepare_whisper_decoder run_asr "${whisper}" "${folder}" "${nbpe}" \
        "data/${transcribed}/text"
    asr_args="$(whisper_sizes "${whisper}" "${folder}") ${asr_args}"
fi
if ! "${pretrain}"; then
    if [ "${system}" = soft ]; then
        prepare_levels run_asr ${tag[@]+"${tag[@]}"}
    fi
    last_call=yes
    run_asr --stage "${stage}" --stop_stage "${stop_stage}" ${tag[@]+"${tag[@]}"} \
        ${pretrained[@]+"${pretrained[@]}"}
fi

pretrain_config=conf/pretrain_100.yaml
if [ "${system}" = transducer_streaming ]; then
    pretrain_config=conf/pretrain_streaming_100.yaml
fi
if [ -z "${pretrain_tag}" ]; then
    pretrain_tag=$(basename "${pretrain_config}" _100.yaml)
    if "${unlabelled}"; then
        pretrain_tag+=_unlabelled
    fi
fi
folder=${expdir}/asr_${pretrain_tag}

# The training of stage 11 on labelled and unlabelled audio, by a command that needs no
# transcripts.
pretrain_unlabelled() {
    local python=${PYTHON:-python3} raw=${dumpdir}/raw
    local all=${raw}/unlabelled${suffix}
    read_checkout
    "${python}" local/librispeech_unlabelled.py --target "${all}" \
        --data_dir "${raw}/${train_set}${suffix}" \
        data/train_clean_360 data/train_other_500
    # shellcheck disable=SC2086
    pretrain_audio "${pretrain_config}" "${folder}" "${all}" "${raw}/dev" \
        "${asr_stats_dir:-${default_stats}}" --frontend_conf fs=16k --max_epoch 12 ${pretrain_args}
}

if [ "${stage}" -le 11 ] && [ "${stop_stage}" -ge 10 ]; then
    # The hub has WavLM only in torch's format.
    (
        activate_checkout
        "${PYTHON:-python3}" local/speech_teacher.py microsoft/wavlm-large \
            c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c downloads/wavlm_large
    )
    last=$((stop_stage < 11 ? stop_stage : 11))
    if "${unlabelled}" && [ "${last}" -eq 11 ]; then
        last=10
    fi
    if [ "${stage}" -le "${last}" ]; then
        run_asr --stage "${stage}" --stop_stage "${last}" --asr_tag "${pretrain_tag}" \
            --asr_config "${pretrain_config}" --asr_args "${pretrain_args}"
    fi
    if [ "${stop_stage}" -lt 11 ]; then
        exit
    fi
    if "${unlabelled}"; then
        pretrain_unlabelled
    fi
    stage=$((stage < 10 ? 10 : stage))
fi
last_call=yes
run_asr --stage "${stage}" --stop_stage "${stop_stage}" \
    --asr_tag "${asr_tag:-${system}_${pretrain_tag}}" ${exp[@]+"${exp[@]}"} \
    --pretrained_model "${folder}/valid.loss.ave.pth:encoder:encoder"
