#!/bin/bash
# shows: the brake of memory.high holds a leak up, and memwatch ends what hangs in it
# kernels: all
# ci: 6.12
# seconds: 90
# machine: shared

. /payload/scenarios/lib.sh

# The innocent that stays below it is never slowed down.
attach below --memory-max 200M --memory-high 100M -- sh -c \
    'head -c 20M /dev/zero | tail >/dev/null
     cat "/sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)/memory.high" >high.found'
expect_ended below finished 0
expect 'memory.high in the target' "$(cat high.found)" $((100 << 20))

"$memwatch" attach --report leak.json --memory-max 200M --memory-high 100M --cmd \
    "cp /proc/self/cgroup where; exec $workload leak --culprit leak.culprit --dir $scratch" </dev/null &
braked() { grep -qs '^high [1-9]' "/sys/fs/cgroup$(sed s/^0::// where)/memory.events"; }
wait_until 30 test -s where
expect 'the brake in memory.events' "$(wait_until 60 braked && echo seen)" seen
wait $!
code=$?
expect_ended leak killed_by_memwatch 137
expect_victim leak memwatch
expect_report leak rule '.interventions[0].rule' stall
expect_report leak 'stayed well below memory.max' \
    '.peak_bytes < .target.memory_max_bytes * 9 / 10' true
