#!/bin/sh
# Evaluate a checkpoint and compare it with a baseline.
#   gate.sh CHECKPOINT BASELINE [arguments of olmes eval; default: --suite dev]
# Exit status: 0 pass, 1 regression, 2 wrong usage, 3 inconclusive, 4 not comparable, 5 infrastructure.
set -eu
checkpoint=$1 baseline=$2
shift 2
[ $# -gt 0 ] || set -- --suite dev

status=0
olmes eval --model "$checkpoint" "$@" --json > eval.json || status=$?
[ "$status" -le 1 ] || exit 5    # 1: a task has no score; the gate handles that
run=$(python3 -c 'import json; print(json.load(open("eval.json"))["path"])')

set -- --baseline "$baseline" --candidate "$run" --report gate.json --junit gate.xml --summary gate.md
[ ! -f gate.yaml ] || set -- "$@" --config gate.yaml
exec olmes gate "$@"
