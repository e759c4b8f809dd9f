#!/bin/sh
# Trains and evaluates every cell, then writes results/; cells that are there are not repeated. See README.md.
# Run from anywhere; `MMI` may name another mmi, `JOBS` how many cells run at a time (one thread each).
set -eu
cd "$(dirname "$0")/../.."
MMI="${MMI:-.venv/bin/mmi}" JOBS="${JOBS:-2}" HERE=experiments/mmfs_on_off
export MMI HERE OMP_NUM_THREADS=1

cell() {  # tokens, MMFS, seed
  run="mmfs_on_off/tokens-$1-mmfs-$2-seed-$3"
  test -f "runs/$run/checkpoints/last/manifest.json" || "$MMI" fit --config "$HERE/experiment.yaml" --run.name="$run" \
    --seed_everything="$3" --model.network.vision.resampler.n_tokens="$1" --model.network.language.mmfs.enabled="$2"
  "$MMI" evaluate --run "runs/$run" --checkpoint last --config "$HERE/evaluation.yaml" --conditions --breakdown
}
if [ "${1:-}" = cell ]; then cell "$2" "$3" "$4"; exit; fi

"$MMI" data microworld --out data/crowded --preset crowded --size 6000 --workers 2 --encoder --config "$HERE/experiment.yaml"

for seed in 0 1 2; do for tokens in 16 2; do for mmfs in true false; do echo "$tokens $mmfs $seed"; done; done; done |
  xargs -P "$JOBS" -L 1 sh -c 'mkdir -p runs/mmfs_on_off && sh "$HERE/run.sh" cell "$@" > "runs/mmfs_on_off/$1-$2-$3.log" 2>&1 && echo "done: $*"' sh
"$(dirname "$MMI")/python" "$HERE/collect.py" runs/mmfs_on_off "$HERE/results"
