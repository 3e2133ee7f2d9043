# shellcheck shell=bash
# Where ESPnet's asr.sh starts its jobs. Only asr.sh reads this file: without
# ESPNET_ROOT every job runs on this machine.
#
#   local   this machine, one log file per job
#   stdout  this machine, also on the terminal
#   slurm   sbatch: put your partitions into conf/slurm.conf
#   pbs     qsub of Torque/PBS: conf/pbs.conf
#   sge     qsub of Grid Engine: conf/queue.conf
#   ssh     the machines listed in .queue/machines, one per line
#   jhu     Grid Engine with the settings of the CLSP cluster
#
# Each job reads path.sh again, and with it local/path.sh: exports such as HF_HOME
# belong there. docs/scaling.md describes training on several GPUs and machines.
cmd_backend='local'

# train_cmd: data preparation and statistics. cuda_cmd: training, and decoding on a GPU.
# decode_cmd: decoding on a CPU.
case "${cmd_backend}" in
    local) train_cmd=run.pl ;;
    stdout) train_cmd=stdout.pl ;;
    slurm) train_cmd=slurm.pl ;;
    pbs) train_cmd=pbs.pl ;;
    sge) train_cmd=queue.pl ;;
    ssh) train_cmd=ssh.pl ;;
    jhu)
        train_cmd="queue.pl --mem 2G"
        cuda_cmd="queue-freegpu.pl --mem 2G --gpu 1 --config conf/queue.conf"
        decode_cmd="queue.pl --mem 4G" ;;
    *)
        echo "error: cmd.sh: cmd_backend='${cmd_backend}': choose local, stdout," \
            "slurm, pbs, sge, ssh or jhu" >&2
        return 1 ;;
esac
if [ "${cmd_backend}" != jhu ]; then
    cuda_cmd=${train_cmd}
    decode_cmd=${train_cmd}
fi
export train_cmd cuda_cmd decode_cmd
