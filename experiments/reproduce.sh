#!/usr/bin/env bash
# Makes the pages of CM-ARR beside a machine per condition: bash experiments/reproduce.sh [SETTING ...]
# Needs `cmarr` on the path with the extra `baselines`, stores/iemocap and stores/msp_improv. Killed, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- iemocap_audio_text iemocap_audio_nonverbal_text msp_improv_audio_text msp_improv_s_audio_text
for setting in "$@"; do
    settings=(-c "experiments/reproduce/$setting.yaml" -c experiments/configs/data/noise_levels.yaml)
    cmarr crossval "${settings[@]}" --out "runs/$setting" --seeds 0,1,2
    cmarr baseline "${settings[@]}" --out "runs/${setting}_svm"
    cmarr report "runs/$setting" "runs/${setting}_svm" --out "reports/$setting"
    cp "reports/$setting/report.md" "experiments/results/$setting.md"
done
