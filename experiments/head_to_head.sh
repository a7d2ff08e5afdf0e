#!/usr/bin/env bash
# Makes the tables of CM-ARR against its peers: bash experiments/head_to_head.sh published|shared [SETTING ...]
# published: each method with the recipe it was published with; shared: all with that of CM-ARR. Seeds: SEEDS=0,1,2.
# Needs `cmarr` on the path with the extra `baselines`, and the stores that the settings name. Killed, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=${1:?published or shared}
shift
[ $# -gt 0 ] || set -- iemocap_audio_text iemocap_audio_nonverbal_text msp_improv_audio_text msp_improv_s_audio_text \
    uci_mfeat_3_views uci_mfeat_6_views
for setting in "$@"; do
    settings=(-c "experiments/reproduce/$setting.yaml")
    [[ $setting == uci_* ]] || settings+=(-c experiments/configs/data/noise_levels.yaml)
    variants=experiments/configs/sweeps/head_to_head_$recipe.yaml
    [[ $setting != msp_* ]] || variants=${variants%.yaml}_msp_improv.yaml
    run=${setting}_$recipe
    cmarr crossval "${settings[@]}" --variants "$variants" --out "runs/$run" --seeds "${SEEDS:-0,1,2}"
    cmarr baseline "${settings[@]}" --out "runs/${setting}_svm"
    cmarr report "runs/$run"/*/ "runs/${setting}_svm" --out "reports/$run"
    cp "reports/$run/report.md" "experiments/results/$run.md"
    if [ -d "reports/$run/counts" ]; then
        mkdir -p "experiments/results/counts/$run"
        cp -r "reports/$run/counts/." "experiments/results/counts/$run"
    fi
done
