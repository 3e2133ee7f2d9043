# shellcheck shell=bash
# Where ESPnet's asr.sh starts its jobs; it reads this file, so this counts with
# ESPNET_ROOT only. Without it every job runs on this machine.
#
#   local   this machine, a log file for each job
#   stdout  this machine, on the terminal as well
#   slurm   sbatch: put your partitions into conf/slurm.conf
#   pbs     qsub of Torque/PBS: conf/pbs.conf
#   sge     qsub of Grid Engine: conf/queue.conf
#   ssh     the machines that .queue/machines lists, one a line
#   jhu     Grid Engine as the CLSP cluster has it
#
# A job reads path.sh again, hence also local/path.sh: exports such as HF_HOME belong
# there. docs/scaling.md says what several GPUs and machines change.
cmd_backend='local'

# train_cmd: data preparation and statistics; cuda_cmd: training, decoding on a GPU;
# decode_cmd: other decoding.
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
