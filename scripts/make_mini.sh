#!/usr/bin/env bash
# Train openvla-mini, or pi0-mini, again, from nothing to the folder that ships. Takes hours on 2 cores.
#
#   [BASE=pi0] scripts/make_mini.sh [WORK] [OUT]      WORK: out/mini    OUT: the plugin's weights folder
#
# Each step leaves a folder in WORK; a step whose folder is there is not done again, and training goes on where it was.
# WORK/steps.jsonl keeps what was run, by which commit and versions; provenance.json takes it from there.
# The environment variables change the size, to try the chain: EPISODES, SCENES, WARM_STEPS, GROUND_STEPS, SEE_STEPS, TRAIN.
set -euo pipefail
cd "$(dirname "$0")/.."
BASE=${BASE:-openvla}
WORK=${1:-out/mini}
OUT=${2:-plugins/${BASE}_mini/pixelvla_${BASE}_mini/weights}
BIN=.venv/bin
MINI=scripts/mini
export MUJOCO_GL=${MUJOCO_GL:-egl}
mkdir -p "$WORK"

note() { # NAME MADE COMMAND...: the command made what is to be called NAME
    $BIN/python $MINI/note.py "$WORK" "$@"
}
record() { # NAME SEED: pick and move near twice as often as the drawer's two tasks
    [ -d "$WORK/$1" ] && return
    local command=("$BIN/pixelvla" record "$WORK/$1" --episodes "${EPISODES:-1300}" --seed "$2" --noise 0.4 --workers 1
        --task pick --task move_near --task pick --task move_near --task open_drawer --task close_drawer)
    "${command[@]}"
    note "$1" "$WORK/$1" "${command[@]}"
}
step() { # TARGET PART COMMAND...: the command writes PART, which is named TARGET when it is whole
    local name="$1" part="$WORK/$2"
    shift 2
    [ -e "$WORK/$name" ] && return
    rm -rf "$part"
    "$@"
    note "$name" "$part" "$@"
    mv "$part" "$WORK/$name"
}

record first 100000 &
FIRST=$!
record second 110000
wait $FIRST
step data part $BIN/python $MINI/merge.py "$WORK/part" "$WORK/first" "$WORK/second"
step pictures.npz part.npz $BIN/python $MINI/pictures.py "$WORK/part.npz" --scenes "${SCENES:-5000}" --seed 0
case $BASE in
openvla)
    step start part $BIN/python $MINI/start.py "$WORK/data" "$WORK/part" --seed 0
    step warm part $BIN/python $MINI/warm_up.py "$WORK/start" "$WORK/pictures.npz" "$WORK/part" \
        --steps "${WARM_STEPS:-5000}" --seed 0
    step ground part $BIN/python $MINI/ground.py "$WORK/warm" "$WORK/pictures.npz" "$WORK/part" \
        --steps "${GROUND_STEPS:-2000}" --seed 0
    LAST=ground ;;
pi0)
    step start_pi0 part $BIN/python $MINI/start_pi0.py "$WORK/data" "$WORK/part" --seed 0
    step seen_pi0 part $BIN/python $MINI/see_pi0.py "$WORK/start_pi0" "$WORK/pictures.npz" "$WORK/part" \
        --steps "${SEE_STEPS:-4000}" --seed 0
    LAST=seen_pi0 ;;
*) echo "BASE is $BASE; expected openvla or pi0" >&2 && exit 2 ;;
esac
# shellcheck disable=SC2086 - TRAIN holds several overrides
TUNE=("$BIN/pixelvla" train "mini/pretrain_$BASE" backbone.weights="$WORK/$LAST" data.options.root="$WORK/data"
    ${TRAIN:-} --out "$WORK/run_$BASE" --resume)
"${TUNE[@]}"
note "run_$BASE" "$WORK/run_$BASE" "${TUNE[@]}"
$BIN/python $MINI/export.py "$WORK/run_$BASE" "$OUT"
