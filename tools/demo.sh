#!/usr/bin/env bash
# make demo: train CIF with HKD for some minutes on a part of FOTAQ, decode, score,
# and show results. Stages that are already complete are reused.

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
epochs=6
tag=demo_hkd
dump=dump/subset_${subset} # the folder of run.sh for a subset

echo "$(date '+%Y-%m-%dT%H:%M:%S') (demo.sh) CIF with HKD on ${subset} utterances of" \
    "real speech, ${epochs} passes: about 10 minutes on two cores"
cd egs2/fotaq/asr_hkd
# The teacher's vectors are stored once instead of computed in every pass.
./run.sh \
    --system hkd \
    --subset "${subset}" \
    --stage 1 \
    --stop_stage 13 \
    --reuse true \
    --asr_tag "${tag}" \
    --inference_tag "${tag}" \
    --asr_args "--max_epoch ${epochs} --keep_nbest_models 2 --num_att_plot 0 --model_conf criterion_conf.teacher_store=${dump}/teacher" \
    --inference_args "--beam_size 5" \
    "$@"
"${PYTHON}" ../../../tools/demo_report.py \
    --exp "exp/subset_${subset}/asr_${tag}" \
    --inference_tag "${tag}" \
    --data "data/test_${subset}" \
    --train_data "data/train_${subset}"
