#!/bin/bash
# shows: a test suite that would fill the machine loses its bad worker, and the shell answers all the time
# kernels: all
# seconds: 420
# machine: shared

. /payload/scenarios/lib.sh
. /payload/scenarios/incident/lib.sh

as_it_was
# As many busy processes as the suite has workers, and memory free: what is late then waits for a CPU. An emulated
# machine on a busy one is late by itself.
bystander busy timeout 30 "$BASH" -c 'while :; do :; done & while :; do :; done'
guarded() { attach incident --cmd 'pytest tests/ -n 2' >pytest.txt; }
bystander guarded guarded
cat pytest.txt
kill -CONT "$(systemctl show -P MainPID systemd-oomd)"

expect_report incident verdict .verdict finished_with_kills
expect 'exit code, which is that of pytest' "$code" 1
expect_victim incident memwatch
expect_report incident 'its name' '.victims[0].comm' python3
expect 'how the suite ended' "$(grep -Eo '[0-9]+ failed, [0-9]+ passed' pytest.txt)" '1 failed, 24 passed'
for what in gap answer; do
    late=$(jq ".longest_${what}_ms" guarded.json)
    allowed=$(jq "[250, 2 * .longest_${what}_ms] | max" busy.json)
    expect_at_least "$allowed ms, allowed for the longest $what beside $late" "$allowed" "$late"
done
