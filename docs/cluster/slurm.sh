#!/bin/bash
# A Podium sweep on four nodes of a Slurm cluster, in a Ray cluster of the job's own.
#   sbatch docs/cluster/slurm.sh sweeps/cifar10.yaml [more arguments of `podium sweep`]
# Submit it from the folder that holds .venv and mlruns, on a file system that all nodes see. The same line again,
# with --resume at its end, goes on where a job's time ran out.
#SBATCH --job-name=podium
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
# For GPUs add, for example:
##SBATCH --gpus-per-node=2

set -euo pipefail
umask 077
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate

# The addresses of both stores, with their passwords, in a file of your own (chmod 600), as `export NAME=value`:
# PODIUM_STUDY_URL and MLFLOW_TRACKING_URI. Only the coordinator reads it: no node and no worker gets them.
stores=${PODIUM_STORES_FILE:-$HOME/.podium-stores}
if [ ! -f "$stores" ]; then
    echo "no file $stores with PODIUM_STUDY_URL and MLFLOW_TRACKING_URI" >&2
    exit 2
fi

# Checkpoints lie where every node reaches them.
export PODIUM_CHECKPOINTS=${PODIUM_CHECKPOINTS:-$PWD/mlruns/checkpoints}

export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
export RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 20000))
address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port

# Ray sees the node's GPUs by itself. Each `srun` lasts as long as its node.
start=(ray start --block --disable-usage-stats "--num-cpus=$SLURM_CPUS_PER_TASK")
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    "${start[@]}" --head "--node-ip-address=${address%:*}" "--port=$port" --include-dashboard=false &
for _ in $(seq 60); do
    timeout 2 bash -c "</dev/tcp/${address%:*}/$port" 2>/dev/null && break
    sleep 2
done
for node in "${nodes[@]:1}"; do
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "${start[@]}" "--address=$address" &
done

# This script runs on the first node, where the head is. Before time is up Slurm sends TERM: workers finish their epoch.
(
    # shellcheck source=/dev/null
    source "$stores"
    exec podium sweep "$@" --executor ray --address "$address"
) &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
code=0
wait "$sweep" || code=$?
if kill -0 "$sweep" 2>/dev/null; then # the first wait ended with the signal
    code=0
    wait "$sweep" || code=$?
fi
exit "$code"
