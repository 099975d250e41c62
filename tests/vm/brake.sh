#!/bin/bash
# shows: the brake that is there by default slows nobody down who works just below the limit, and gives the guard time for a leak
# kernels: all
# seconds: 240
# machine: shared

. /payload/scenarios/lib.sh

# high_of NAME ARGUMENT...
high_of() {
    local name=$1
    shift
    attach "$name" "$@" -- sh -c 'cat "/sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)/memory.high" >high.found'
    cat high.found
}
expect 'memory.high by default' "$(high_of default --memory-max 256M | tail -1)" $(((256 << 20) * 47 / 48 / 65536 * 65536))
expect 'memory.high without a brake' "$(high_of none --memory-max 256M --memory-high none | tail -1)" max

# Half-way between the brake and the limit. It fails if it crawls.
attach brink --memory-max 256M -- "$workload" brink --permille 988 --seconds 90
expect_ended brink finished 0
expect_report brink victims '.victims | length' 0
expect_at_least 'brink: peak in permille of the limit' \
    "$(report brink '.peak_bytes * 1000 / .target.memory_max_bytes | floor')" 985

# Nobody is there to end the leak before the limit. Without the brake the OOM killer does it.
start_waiting_leak --memory-max 256M
ooms=$(oom_kills)
kill -STOP "$watch"
# Longer than it takes for memwatch to be missed.
sleep 4
expect_leak_ended_by_guard
expect 'kills by the OOM killer' $(($(oom_kills) - ooms)) 0
