#!/usr/bin/env bash
# Trains the quickstart, lets the model write, and makes the routing report.   tools/demo.sh PROGRAM [RUN]
set -euo pipefail
cd "$(dirname "$0")/.."
program=$1
run=${2:-runs/quickstart}
if [ -d "$run/checkpoints" ]; then
  echo "$run is there already; going on with it (remove the folder to train anew)"
  "$program" resume "$run"
else
  "$program" train recipes/quickstart.yaml output="$run"
fi
echo
echo "--- a sample -----------------------------------------------------------------"
"$program" generate "$run" --prompt "The " --max-tokens 120 --temperature 0.8 --seed 1
echo
echo "------------------------------------------------------------------------------"
"$program" inspect "$run"
echo "The routing report: $run/report.html"
