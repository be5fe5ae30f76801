#!/usr/bin/env bash
# What the results want of a GPU, in so many minutes of one card (default: 14):
#
#     tests/benchmarks/on_a_gpu.sh DATA OUTPUT [MINUTES]
#
# DATA is a folder with the tasks of docs/protocol.md. Every part ends at its share of
# the minutes, and the same call goes on where it was ended: stores and traces lie in
# OUTPUT. ENCODERS=FOLDER has e5-small and mpnet-base, for twelve layers; WORKERS is the
# number of processes that share the card (default: 4). DRY_RUN=1 prints the plans alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data=${1:?DATA, a folder} output=${2:?OUTPUT, a folder} minutes=${3:-14}
workers=${WORKERS:-4}
export XLA_PYTHON_CLIENT_PREALLOCATE=false # several processes, one card
mkdir -p "$output"

part() { # percent of the minutes, a command
  local seconds=$((minutes * 60 * $1 / 100)) status=0
  shift
  printf '\n+ [%d s] %s\n' "$seconds" "$*"
  timeout --signal INT --kill-after 30 "$seconds" "$@" || status=$?
  # 124 and 130: its time was over, and what ended is in its store.
  [[ $status == 0 || $status == 124 || $status == 130 ]] || echo "status $status"
}
compare() { # percent, plan, flags
  local percent=$1 plan=$2
  shift 2
  part "$percent" python -m metalr compare --plan "$plan" --data "$data" \
    --output "$output/$plan" --workers "$workers" --executor processes \
    ${DRY_RUN:+--dry-run} "$@"
}

python -c 'import jax; print(*{d.device_kind for d in jax.devices()}, jax.__version__)'

# The tables first: few rows of all problems, then more rows.
compare 30 fresh --schedulers metalr metalr_prior --tuned linear wsd
compare 15 targets --schedulers metalr metalr_prior --tuned linear wsd
compare 10 long --models minilm:1 --seeds 1 --schedulers linear wsd metalr
if [[ -n ${ENCODERS:-} ]]; then
  compare 10 deep --models "$ENCODERS/e5-small" --schedulers metalr --tuned linear
  compare 5 deep --models "$ENCODERS/mpnet-base" --seeds 1 --tasks mr emotion \
    --schedulers metalr --tuned linear
fi

# Traces for the next predictor: encoders and the zoo, the runs of a sweep side by side.
if [[ -z ${DRY_RUN:-} ]]; then
  part 20 python train_meta.py --data "$data" --zoo 30 --runs 270 --rounds 0 --no-check \
    --model minilm:2 minilm:4 minilm:6 ${ENCODERS:+"$ENCODERS/e5-small"} \
    --length 48 64 --batch 16 32 --horizon 200 400 --workers "$workers" \
    --output "$output/traces"
  part 5 python tests/benchmarks/benchmark_step_cost.py --cases 6:32x128full
fi
