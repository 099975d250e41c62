#!/bin/bash
# shows: of ten targets at once the bad one is ended, and the other nine finish what they do
# kernels: all
# ci: 6.12
# seconds: 300
# machine: shared

. /payload/scenarios/lib.sh

# start NAME LIMIT COMMAND: under a memwatch of its own; it begins when all are there.
declare -A watches
start() {
    MEMWATCH_CULPRIT_FILE=$PWD/$1.culprit "$memwatch" attach --report "$1.json" --memory-max "$2" --cmd \
        "echo >$1.there; until [ -e go ]; do sleep 0.5; done; $3" </dev/null 2>"$1.err" &
    watches[$1]=$!
}

# before NAME WHEN OTHER: whether NAME's `started_at` or `ended_at` is earlier than the end of OTHER.
before() { [[ $(report "$1" ".$2") < $(report "$3" .ended_at) ]] && echo yes; }

ooms=$(oom_kills)
numbers=300000
for n in 1 2 3; do
    start sort-$n 64M "seq $numbers | shuf | sort -n -S 32M -T $scratch | sha256sum >sort-$n.sum"
    start steady-$n 64M "exec $workload steady --seconds 40"
    start burst-$n 64M "exec $workload burst --processes 100 --seconds 60"
done
start bad 64M "exec $workload leak --rate 8M --dir $scratch"
there() { [ "$(find . -name '*.there' | wc -l)" = 10 ]; }
expect 'the targets that are there at once' "$(wait_until 120 there && echo ten)" ten
touch go

for name in "${!watches[@]}"; do
    wait "${watches[$name]}"
    code=$?
    if [ "$name" = bad ]; then
        expect_ended bad killed_by_memwatch 137
        expect_victim bad memwatch
    else
        expect_ended "$name" finished 0
        expect_report "$name" victims '.victims | length' 0
    fi
    expect_no_target "$name"
done
expect 'kills by the OOM killer' $(($(oom_kills) - ooms)) 0
for n in 1 2 3; do
    expect "sort-$n: what came of it" "$(cat sort-$n.sum)" "$(seq $numbers | sha256sum)"
done
for name in steady-{1,2,3}; do
    expect "$name was still there when the bad one ended" "$(before bad ended_at "$name")" yes
done
