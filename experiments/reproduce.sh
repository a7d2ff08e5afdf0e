#!/usr/bin/env bash
# Makes every table of experiments/results: bash experiments/reproduce.sh [SETTING ...]
# Needs `cmarr` on the path with the extra `baselines`, stores/iemocap and stores/msp_improv. Killed, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- iemocap_audio_text iemocap_audio_nonverbal_text msp_improv_audio_text msp_improv_s_audio_text
for setting in "$@"; do
    config=experiments/reproduce/$setting.yaml
    cmarr crossval -c "$config" --out "runs/$setting" --seeds 0,1,2
    cmarr baseline -c "$config" --out "runs/svm_$setting"
    cmarr report "runs/$setting" "runs/svm_$setting" --out "reports/$setting"
    cp "reports/$setting/report.md" "experiments/results/$setting.md"
done
