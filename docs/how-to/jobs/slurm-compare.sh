#!/bin/bash
# Compare the ways on one machine, several trials at once: sbatch slurm-compare.sh
#SBATCH --job-name=fullbake-compare
#SBATCH --nodes=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue

set -eu
fullbake compare train.csv --text text --label label --base base --budget 7h --jobs 4 --out comparison
