#!/bin/bash
# shows: the same suite freezes the machine without memwatch
# kernels: all
# seconds: 300
# machine: fresh

. /payload/scenarios/lib.sh
. /payload/scenarios/incident/lib.sh

as_it_was
bystander before sleep 5

ooms=$(oom_kills)
unguarded() {
    systemd-run --quiet --wait --unit=suite --property=WorkingDirectory="$PWD" --property=OOMPolicy=continue \
        -E MEMWATCH_CULPRIT_FILE="$PWD/culprit" timeout --signal=KILL 180 pytest tests/ -n 2
}
bystander unguarded unguarded
echo "kills by the OOM killer: $(($(oom_kills) - ooms))"
journalctl --unit=suite --output=cat
jq -s . before.json unguarded.json
# Twice what is allowed with memwatch.
expect_at_least "the longest that the shell took to answer, in ms," "$(jq .longest_answer_ms unguarded.json)" 500
