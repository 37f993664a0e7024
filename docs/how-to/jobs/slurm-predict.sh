#!/bin/bash
# Score a folder of shards, one shard a task. Submit it in a folder that all machines share: sbatch slurm-predict.sh
#SBATCH --job-name=fullbake-predict
#SBATCH --array=0-99%20
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --output=%x-%A-%a.log
#SBATCH --requeue

set -eu
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"

shard=$(printf 'part-%05d.parquet' "$SLURM_ARRAY_TASK_ID")
mkdir -p scored
if [ -e "scored/$shard" ]; then # an output appears only when it is complete
    echo "$shard is scored already"
    exit 0
fi
fullbake predict classifier "shards/$shard" --text text --out "scored/$shard"
