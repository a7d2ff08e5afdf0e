#!/usr/bin/env bash
# A synthetic corpus, training, the seven-condition table: minutes on a laptop. Everything lands in .demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .demo/run
[ -f .demo/store/store.json ] || cmarr synthesize .demo/store --preset iemocap --seed 0
cmarr fit -c experiments/configs/demo.yaml --run .demo/run
cmarr test --run .demo/run
echo "Confusion matrices: .demo/run/test/confusion.png"
echo "Checkpoint:         $(ls .demo/run/checkpoints/best-*.ckpt)"
