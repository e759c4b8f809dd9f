#!/bin/sh
# Trains on 32 documents, then measures and draws them; see README.md. Run from anywhere; `MMI` may name another mmi.
set -eu
cd "$(dirname "$0")/../.."
MMI="${MMI:-.venv/bin/mmi}"
HERE=experiments/overfit_32
"$MMI" data microworld --out data/microworld --size 4000 --encoder --config configs/demo.yaml
"$MMI" fit --config "$HERE/experiment.yaml"
"$MMI" validate --run runs/overfit_32 --ckpt_path last | tee "$HERE/results/losses.txt"
cp runs/overfit_32/samples/step-400/panel.png "$HERE/results/panel.png"
