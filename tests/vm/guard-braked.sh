#!/bin/bash
# shows: the guard in the kernel ends what hangs in the brake of memory.high while memwatch is stopped
# kernels: all
# ci: 6.12
# seconds: 150
# machine: shared

. /payload/scenarios/lib.sh

# Far below memory.max, so that nothing but the brake holds the leak up.
"$memwatch" attach --report leak.json --memory-max 512M --memory-high 64M --cmd \
    "until [ -e $PWD/go ]; do sleep 0.2; done; exec $workload leak --culprit $PWD/leak.culprit --seconds 100" \
    </dev/null &
watch=$!
expect 'the guard' "$(wait_until 60 stands_guard && echo stands)" stands
kill -STOP "$watch"
touch go
expect 'the leak' "$(wait_until 20 test -s leak.culprit && echo began)" began
expect 'the leak' "$(wait_until 60 is_over "$(cat leak.culprit)" && echo ended)" ended
kill -CONT "$watch"
wait "$watch"
code=$?
expect_ended leak killed_by_guard 137
expect_victim leak guard
