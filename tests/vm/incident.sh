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
busy() { timeout 20 "$BASH" -c 'while :; do :; done & while :; do :; done'; }
bystander before busy
guarded() { attach incident --cmd 'pytest tests/ -n 2' >pytest.txt; }
bystander guarded guarded
bystander after busy
cat pytest.txt
kill -CONT "$(systemctl show -P MainPID systemd-oomd)"

expect_report incident verdict .verdict finished_with_kills
expect 'exit code, which is that of pytest' "$code" 1
expect_victim incident memwatch
expect_report incident 'its name' '.victims[0].comm' python3
expect 'how the suite ended' "$(grep -Eo '[0-9]+ failed, [0-9]+ passed' pytest.txt)" '1 failed, 24 passed'
# The promise is 250 ms. Where an answer takes more than half of that while memory is free, it is twice what it takes
# then.
slowest=$(jq .longest_answer_ms guarded.json)
busy=$(jq --slurp 'map(.longest_answer_ms) | max' before.json after.json)
allowed=250
[ "$busy" -gt 125 ] && allowed=$((2 * busy))
echo "the slowest answers: $slowest ms, beside busy loops alone $busy ms; allowed are $allowed ms"
expect "the slowest answer is one of at most $allowed ms" "$([ "$slowest" -le "$allowed" ] && echo yes)" yes
