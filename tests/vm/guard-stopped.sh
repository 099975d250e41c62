#!/bin/bash
# shows: the guard in the kernel ends a thrasher while memwatch is stopped, and when it is dead
# kernels: all
# ci: all
# seconds: 240
# machine: shared

. /payload/scenarios/lib.sh

# thrash NAME: a thrasher under memwatch, which the guard stands over by the time this returns. It has made
# its file, which takes reclaim too, and is about to read it. Sets $watch and $culprit.
thrash() {
    MEMWATCH_CULPRIT_FILE=$PWD/$1.culprit "$memwatch" attach --report "$1.json" --memory-max 64M --cmd \
        "until [ -e $PWD/$1.go ]; do sleep 0.2; done; exec $workload thrash --seconds 120 --dir $scratch" \
        </dev/null &
    watch=$!
    expect "$1: the guard" "$(wait_until 60 stands_guard && echo stands)" stands
    touch "$1.go"
    expect "$1: the thrasher" "$(wait_until 60 test -s "$1.culprit" && echo began)" began
    culprit=$(cat "$1.culprit")
}

# expect_end NAME: of the thrasher, with nobody but the kernel to bring it about.
expect_end() {
    local since=$SECONDS
    expect "$1: the thrasher" "$(wait_until 60 is_over "$culprit" && echo ended)" ended
    echo "$1: after $((SECONDS - since)) s"
}

thrash stopped
kill -STOP "$watch"
expect_end stopped
kill -CONT "$watch"
wait "$watch"
code=$?
expect_ended stopped killed_by_guard 137
expect_victim stopped guard
expect_report stopped rule '.interventions[0].rule' guard

thrash dead
kill -KILL "$watch"
expect_end dead
expect 'the guard, with memwatch dead' "$("$memwatch" guard list | grep -c 'its memwatch is dead')" 1
# Whoever comes next tells, and takes away what has no target.
attach next -- sleep 5
expect_ended next finished 0
expect_report next 'kills that it tells of' \
    "[.notes[] | select(contains(\"guard in the kernel killed workload (pid $culprit)\"))] | length" 1
