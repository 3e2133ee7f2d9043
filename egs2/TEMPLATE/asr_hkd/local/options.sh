# shellcheck shell=bash disable=SC2034,SC2154
# What run.sh and local/data.sh of all recipes share: reading options, reporting errors.
# Both source this file. It needs neither Kaldi's utils/ nor an ESPnet checkout.

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (${0##*/}) $*"
}

# An option that is wrong ends the script with status 2.
refuse() {
    echo "error: $*" >&2
    exit 2
}

# take_options "NAMES" ARGUMENTS...
# Sets the variable NAME for each "--NAME VALUE" or "--NAME=VALUE" whose name is one of
# NAMES; like asr.sh, it reads "-" in a name as "_". All other arguments go, in order,
# into the array "options".
take_options() {
    local names=" ${1//[[:space:]]/ } " name
    shift
    options=()
    while [ $# -gt 0 ]; do
        name=${1%%=*}
        name=${name#--}
        name=${name//-/_}
        if [[ $1 != --* || ${names} != *" ${name} "* ]]; then
            options+=("$1")
            shift
        elif [[ $1 == *=* ]]; then
            printf -v "${name}" '%s' "${1#*=}"
            shift
        else
            [ $# -ge 2 ] || refuse "$1 needs a value"
            printf -v "${name}" '%s' "$2"
            shift 2
        fi
    done
}

# choose NAME CHOICES...: refuses a value of the variable NAME that is not a choice.
choose() {
    local name=$1 choice choices
    shift
    for choice in "$@"; do
        if [ "${!name}" = "${choice}" ]; then
            return
        fi
    done
    printf -v choices '%s, ' "${@:1:$#-1}"
    refuse "--${name} ${!name}: choose ${choices%, } or ${!#}"
}

# Sets system_config to the training configuration of ${system}.
find_system_config() {
    system_config=conf/train_asr_cif_${system}.yaml
    if [ ! -f "${system_config}" ]; then
        system_config=conf/train_asr_${system}.yaml
    fi
}

# The names of a training on ${subset} utterances, or on the complete corpus if it is 0.
# A subset has its own names for everything, so that it never shares a token list,
# statistics or a checkpoint with the complete corpus. ${lang} must be set before;
# ${train_set}, ${valid_set}, ${dumpdir} and ${expdir} are kept unless they are empty.
# ${complete_set} is the set whose text makes the token list and the language models,
# also if another one is trained on.
name_subset() {
    case "${subset}" in
        *[!0-9]* | "") refuse "--subset ${subset}: give a number of utterances" ;;
    esac
    complete_set=train
    local valid=dev
    test_sets="dev test"
    local_data_opts=
    if [ "${subset}" -gt 0 ]; then
        complete_set=train_${subset}
        valid=dev_${subset}
        test_sets=test_${subset}
        lang=${lang}_${subset}
        : "${dumpdir:=dump/subset_${subset}}" "${expdir:=exp/subset_${subset}}"
        local_data_opts="--subset ${subset}"
    fi
    : "${train_set:=${complete_set}}" "${valid_set:=${valid}}"
    : "${dumpdir:=dump}" "${expdir:=exp}"
}

# Makes the levels of soft labels in other folders use files of their own: exp/lm_* and
# dump/lm_* of ${system_config} and ${asr_args} become those in ${expdir} and ${dumpdir}.
# Labels belong to language models: those of another --expdir alone are beside its models.
subset_levels() {
    local config=${expdir}/conf/${system_config##*/} part labels=${dumpdir}
    if [ "${expdir}" != exp ] && [ "${expdir#exp}" != "${dumpdir#dump}" ]; then
        labels=${expdir}
    fi
    if [ "${expdir} ${dumpdir}" = "exp dump" ] ||
        ! grep -q 'type: soft_labels' "${system_config}"; then
        return
    fi
    mkdir -p "${expdir}/conf"
    part=$(mktemp "${config}.XXXXXX")
    sed -e "s|\([ =]\)exp/lm_|\1${expdir}/lm_|g" -e "s|\([ =]\)dump/lm_|\1${labels}/lm_|g" \
        "${system_config}" > "${part}"
    mv "${part}" "${config}"
    system_config=${config}
    asr_args=${asr_args//=exp\/lm_/=${expdir}/lm_}
    asr_args=${asr_args//=dump\/lm_/=${labels}/lm_}
}

# What a function of run.sh, which has all options of asr.sh, calls with them.
program=(./asr.sh)

# prepare_levels RUN [ARGUMENTS...]
# Runs the stages before 10, then makes what the levels of soft labels need, if stage 10
# or 11 is wanted. RUN and its arguments call ${program}; local/levels.sh gets
# ${level_options}. Afterwards ${stage} is the first stage that was not run.
prepare_levels() {
    if [ "${stage}" -gt 11 ] || [ "${stop_stage}" -lt 10 ]; then
        return
    fi
    if [ "${stage}" -lt 10 ]; then
        program=(local/levels.sh --check "${level_options[@]}" --)
        "$@"
        program=(./asr.sh)
        "$@" --stage "${stage}" --stop_stage 9
        stage=10
    fi
    program=(local/levels.sh "${level_options[@]}" --)
    "$@"
    program=(./asr.sh)
}

# prepare_whisper_decoder RUN MODEL FOLDER PIECES TEXT [COMMAND...]
# Runs the stages up to 5 for `decoder: cif_whisper`; stage 5 takes the token list and the
# decoder's parameters of the Whisper in the folder MODEL, which COMMAND makes if it is
# given. PIECES: their number; if it is empty, stage 5 is the one of asr.sh, and the
# decoder has the units of its token list TEXT. ${whisper_language} is empty for a Whisper
# of one language. RUN calls asr.sh with all options. Afterwards ${stage} is the first
# stage that was not run, and ${pretrained} has the words of asr.sh for the parameters,
# none if ${whisper_init} is false. Exits if no stage is left.
prepare_whisper_decoder() {
    local run=$1 model=$2 folder=$3 pieces=$4 text=$5 last
    local kept=(--text "${text}" --pieces "${pieces}") # RUN has its own "units"
    if [ -z "${pieces}" ]; then
        kept=(--token_list "${text}")
    fi
    last=$((${#pieces} ? 4 : 5))
    if "${whisper_init:-true}"; then
        pretrained=(--pretrained_model "${folder}/decoder.pth:decoder:decoder")
    fi
    if [ "${stage}" -le 11 ] && [ "${stop_stage}" -ge 5 ]; then
        if [ "${stage}" -le "${last}" ]; then
            "${run}" --stage "${stage}" --stop_stage "${last}"
        fi
        "${@:6}"
        read_checkout
        "${PYTHON:-python3}" -m espnet_cif_hkd.cli.whisper_decoder "${model}" "${folder}" \
            ${whisper_language:+--language "${whisper_language}"} "${kept[@]}"
        stage=$((stage < 6 ? 6 : stage))
    fi
    if [ "${stage}" -gt "${stop_stage}" ]; then
        exit
    fi
}

# check_whisper FOLDER: refuses to train without the files of a Whisper.
check_whisper() {
    if [ "${stage}" -le 11 ] && [ ! -f "$1/model.safetensors" ]; then
        refuse "--whisper $1: there is no model.safetensors; put the files of a Whisper" \
            "there, e.g. hf download openai/whisper-small --local-dir $1"
    fi
}

# whisper_sizes MODEL FOLDER: prints words for --asr_args, the size of the decoder that
# prepare_whisper_decoder made in FOLDER, and the encoder of the same Whisper.
whisper_sizes() {
    local model=$1 folder=$2 sizes
    if [ -f "${folder}/config.yaml" ]; then
        sizes=$(sed -n 's/^  \([a-z_]*\): \([0-9]*\)$/ --decoder_conf \1=\2/p' \
            "${folder}/config.yaml")
        echo "--frontend_conf teacher=${model}${sizes//$'\n'/}"
    fi
}

# pretrain_audio CONFIG FOLDER TRAIN VALID STATS [OPTIONS of espnet_cif_hkd.cli.pretrain...]
# Stores the features of the speech teachers of CONFIG, then trains an encoder in FOLDER
# on data folders that need no transcripts, with ${ngpu} and ${feats_normalize} of
# asr.sh. STATS: the folder of the statistics for global_mvn.
pretrain_audio() {
    local python=${PYTHON:-python3} config=$1 folder=$2 train=$3 valid=$4
    local more=(--ngpu "${ngpu}")
    if [ "${feats_normalize}" = global_mvn ]; then
        more+=(--normalize global_mvn)
        more+=(--normalize_conf "stats_file=$5/train/feats_stats.npz")
    fi
    if [ "${ngpu}" -gt 1 ]; then
        more+=(--multiprocessing_distributed true)
    fi
    shift 5
    "${python}" -m espnet_cif_hkd.cli.dump_speech_teacher \
        --asr_config "${config}" --data_dir "${train}" "${valid}"
    mkdir -p "${folder}"
    log "training without transcripts; the log is ${folder}/train.log"
    "${python}" -m espnet_cif_hkd.cli.pretrain \
        --config "${config}" --resume true --output_dir "${folder}" \
        --train_data_path_and_name_and_type "${train}/wav.scp,speech,sound" \
        --valid_data_path_and_name_and_type "${valid}/wav.scp,speech,sound" \
        --train_shape_file "${train}/utt2num_samples" \
        --valid_shape_file "${valid}/utt2num_samples" \
        "${more[@]}" "$@" >> "${folder}/train.log" 2>&1 || {
        tail -n 3 "${folder}/train.log" >&2
        exit 1
    }
}

# Options of pseudo-labels for take_options, and their defaults.
pseudo_options="pseudo_labels labeller labeller_args pseudo_tag pseudo_args"
pseudo_labels=
labeller=
labeller_args=
pseudo_tag=pseudo
pseudo_args=

# Refuses pseudo-labels that cannot be made.
check_pseudo_labels() {
    local audio
    for audio in ${pseudo_labels}; do
        [ -e "${audio}" ] || refuse "--pseudo_labels ${audio}: there is no such folder" \
            "or wav.scp"
    done
    if [ -n "${pseudo_labels}" ] && [ ! -f "${labeller}/config.yaml" ] &&
        [ ! -f "${labeller}/tokenizer.json" ]; then
        refuse "--pseudo_labels needs --labeller, the folder of a trained recogniser" \
            "(exp/asr_...) or of a Whisper model with its tokenizer; '${labeller}' has" \
            "neither config.yaml nor tokenizer.json"
    fi
    if [ -n "${labeller}" ] && [ -z "${pseudo_labels}" ]; then
        refuse "--labeller ${labeller}: only --pseudo_labels reads it"
    fi
}

# add_pseudo_labels RUN STATS
# Runs stage 1, then adds the speech of ${pseudo_labels} to the training set, with the
# text that ${labeller} writes, if stages 1 or 2 are wanted. Later stages use the new set
# ${train_set}, with statistics in ${asr_stats_dir} (default STATS) and the model in
# ${asr_tag}. RUN calls asr.sh with all options. Afterwards ${stage} is the first stage
# that was not run.
add_pseudo_labels() {
    local python=${PYTHON:-python3} results=${dumpdir}/pseudo/${pseudo_tag}
    if [ -z "${pseudo_labels}" ] || [ "${stop_stage}" -lt 2 ]; then
        return
    fi
    if [ "${stage}" -le 1 ]; then
        "$1" --stage 1 --stop_stage 1
        stage=2
    fi
    if [ "${stage}" -le 2 ]; then
        read_checkout
        local text=(--results "${results}")
        if [ -f "${labeller}/config.yaml" ]; then
            # shellcheck disable=SC2086
            "${python}" -m espnet_cif_hkd transcribe ${pseudo_labels} \
                --model "${labeller}" -f json -o "${results}" ${labeller_args:---beam 5}
        else
            text=(--text "${results}/text")
            # shellcheck disable=SC2086
            "${python}" -m espnet_cif_hkd.cli.whisper_text ${pseudo_labels} \
                --model "${labeller}" -o "${results}/text" ${labeller_args}
        fi
        # shellcheck disable=SC2086
        "${python}" -m espnet_cif_hkd pseudo-labels ${pseudo_labels} \
            "${text[@]}" --data_dir "data/${train_set}" \
            -o "data/${train_set}_${pseudo_tag}" ${pseudo_args}
    fi
    train_set+=_${pseudo_tag}
    # Other names than those of the labeller, which may be the same system.
    : "${asr_stats_dir:=$2}" "${asr_tag:=${system}_${pseudo_tag}}"
    asr_stats_dir+=_${pseudo_tag}
}

# begin_data "USAGE" "NAMES" ARGUMENTS...
# The first step of local/data.sh: take_options, where an unknown option is an error.
# Ends the script for --help, and in stage 4, which asr.sh announces by --asr_data_dir:
# these recipes have no post-processing.
begin_data() {
    local usage=$1 names=$2
    shift 2
    if [ "${1:-}" = --help ]; then
        echo "${usage}"
        exit 0
    fi
    asr_data_dir=
    take_options "asr_data_dir ${names}" "$@"
    if [ ${#options[@]} -gt 0 ]; then
        refuse "$0 has no option ${options[0]}"
    fi
    if [ -n "${asr_data_dir}" ]; then
        log "nothing to do for ${asr_data_dir}: post-processing is not needed here"
        exit 0
    fi
}

# read_checkout [NAME]: reads path.sh of an ESPnet checkout and, for a variable NAME,
# db.sh. A value of NAME in the environment takes precedence over both files.
read_checkout() {
    local name=${1:-} given=
    if [ -n "${name}" ]; then
        given=${!name:-}
    fi
    set +u # ESPnet's scripts use variables that may be unset
    # Without ESPNET_ROOT path.sh may be left from a checkout that no longer exists.
    if [ -n "${ESPNET_ROOT:-}" ] && [ -e ./path.sh ]; then
        # shellcheck disable=SC1091
        . ./path.sh
    fi
    if [ -n "${name}" ] && [ -e ./db.sh ]; then
        # shellcheck disable=SC1091
        . ./db.sh
    fi
    set -u
    if [ -n "${given}" ]; then
        printf -v "${name}" '%s' "${given}"
    fi
}

# Activates the Python of the ESPnet checkout in ESPNET_ROOT, as its path.sh does, for
# commands before the first asr.sh, which makes path.sh.
activate_checkout() {
    local file=${ESPNET_ROOT:-}/tools/activate_python.sh
    if [ -n "${ESPNET_ROOT:-}" ] && [ -f "${file}" ]; then
        set +u # ESPnet's scripts use variables that may be unset
        # shellcheck disable=SC1090
        . "${file}"
        set -u
    fi
}

# declare_inputs INPUTS...: what stage 1 has read, for --reuse: files, folders, and
# variables of the environment as '$NAME'. Without it stage 1 is never reused.
declare_inputs() {
    mkdir -p data
    printf '%s\n' "$@" > data/.inputs
}
