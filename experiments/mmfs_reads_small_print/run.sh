#!/bin/sh
# Two arms, two seeds; see README.md. Run from anywhere after `make install`; `MMI` may name another mmi command.
set -eu
cd "$(dirname "$0")/../.."
MMI="${MMI:-.venv/bin/mmi}"
HERE=experiments/mmfs_reads_small_print
"$MMI" data microworld --out data/microworld --vision-trunk data/microworld-trunk --config model/micro.yaml
for seed in 0 1; do
  for mmfs in true false; do
    name="mmfs-$mmfs-seed-$seed"
    "$MMI" fit --config "$HERE/experiment.yaml" --run.name="$name" --seed_everything="$seed" --data.seed="$seed" \
      --model.network.language.mmfs.enabled="$mmfs"
    "$MMI" validate --run "runs/mmfs_reads_small_print/$name" --ckpt_path last > "$HERE/results/$name.txt"
  done
done
