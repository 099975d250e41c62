#!/bin/bash
# shows: hogs are ended by memwatch and not by the kernel, the right process of them, and nothing is left
# kernels: all
# ci: all
# seconds: 240
# machine: shared

. /payload/scenarios/lib.sh

attach limit --memory-max 64M -- sh -c \
    'cat "/sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)/memory.max" >limit.found'
expect_ended limit finished 0
expect 'memory.max in the target' "$(cat limit.found)" $((64 << 20))

attach leak --memory-max 200M -- "$workload" leak --dir "$scratch"
expect_ended leak killed_by_memwatch 137
expect_victim leak memwatch
expect_report leak rule '.interventions[0].rule' exhaustion

# The parent ends with 0 only if nobody but the culprit was ended.
attach fork-tree --memory-max 200M -- "$workload" fork-tree --rate 50M --dir "$scratch"
expect_ended fork-tree finished_with_kills 0
expect_victim fork-tree memwatch

attach thrash --memory-max 64M -- "$workload" thrash --seconds 90 --dir "$scratch"
if [ "$code" -eq 0 ]; then
    # The kernel counted little waiting: the host had the disk's pages in memory, and what does not stall is left alone.
    expect_ended thrash finished 0
    expect 'thrash: it stalled for less than the rule asks for' \
        "$(report thrash 'if .stall_full_us * 1000 / .duration_us < 200 then "yes" else .stall_full_us end')" yes
else
    expect_ended thrash killed_by_memwatch 137
    expect_victim thrash memwatch
    expect_report thrash rule '.interventions[0].rule' stall
fi
