#!/bin/bash
# Fine-tune on one to four machines. Submit it in a folder that all of them share: sbatch slurm-train.sh
#SBATCH --job-name=fullbake-train
#SBATCH --nodes=1-4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# A machine that fails ends neither the job (--no-kill) nor the training; if the first one fails, Slurm starts the job again.
#SBATCH --no-kill
#SBATCH --requeue
# Three minutes before the time is up, this script gets USR1, lets the training save, and puts the job into the queue again.
#SBATCH --signal=B:USR1@180

set -u
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"
export FULLBAKE_CACHE_DIR="$SLURM_SUBMIT_DIR/cache" # shared by all machines
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1          # see train-on-several-machines.md
# export GLOO_SOCKET_IFNAME=ib0                     # if the machines have several networks

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

srun --no-kill --kill-on-bad-exit=0 \
    torchrun --nnodes "1:$SLURM_JOB_NUM_NODES" --nproc-per-node 1 --max-restarts 10 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:$port" \
    -m fullbake train train.csv --text text --label label --base base --epochs 3 \
    --checkpoint-every 5m --out classifier &
training=$!

again=0
trap 'again=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 # to the processes, not to this script
wait "$training"
code=$?
if ((again)); then # the signal ended the first wait; the processes save and stop now
    wait "$training"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
