#!/bin/bash
# shows: a test suite that would fill the machine loses its bad worker, and the shell answers all the time
# kernels: all
# seconds: 420
# machine: shared

. /payload/scenarios/lib.sh
. /payload/scenarios/incident/lib.sh

as_it_was
# As any command of which nothing is known but its processes.
guarded_between_busy --no-pytest

expect_report incident verdict .verdict finished_with_kills
expect 'exit code, which is that of pytest' "$code" 1
expect_victim incident memwatch
expect_report incident 'its name' '.victims[0].comm' python3
expect 'how the suite ended' "$(grep -Eo '[0-9]+ failed, [0-9]+ passed' pytest.txt)" '1 failed, 24 passed'
expect_answers
