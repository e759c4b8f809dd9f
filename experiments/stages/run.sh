#!/bin/sh
# Trains the eight small stages, scores each before and after, and writes results, table, pictures and cards here; what is
# there is not repeated, and a stage that was interrupted goes on. See README.md. MMI may name another mmi, STAGES fewer stages.
set -eu
cd "$(dirname "$0")/../.."
MMI="${MMI:-.venv/bin/mmi}" HERE=experiments/stages
PYTHON="$(dirname "$MMI")/python"
STAGES="${STAGES:-pretrain vqa_caption rec ade20k vist pororo flintstones joint_stories}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

test -f data/microworld/judges/judges.json -a -f data/microworld/encoder/config.json ||
  "$MMI" data microworld --out data/microworld --size 4000 --workers 2 --encoder --judges --config configs/demo.yaml
scored() {  # suite, run, what else
  suite="$1" run="$2"
  shift 2
  "$MMI" evaluate --run "runs/stage-$run" --config eval/stages.yaml --suite "$suite" --checkpoint last "$@"
}
for stage in $STAGES; do
  "$MMI" fit --config "configs/stages/micro/$stage.yaml" --ckpt_path auto
  scored "$stage" "$stage"
  if test "$stage" = pretrain; then scored pretrain pretrain --untrained; else scored "$stage" pretrain; fi
  mkdir -p "$HERE/$stage"
  # Before the first stage are its own untrained weights. Tasks are named, as the first run's folder also holds what was
  # asked before the other stages.
  "$MMI" report --card "$HERE/$stage/card.json" --run "runs/stage-$stage" --before runs/stage-pretrain \
    --tasks "$("$PYTHON" "$HERE/collect.py" --tasks "$stage")"
done
"$PYTHON" "$HERE/collect.py" runs
"$PYTHON" "$HERE/pictures.py" runs
