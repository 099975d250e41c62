#!/bin/bash
# shows: what memwatch finds on this kernel, what it lacks and who is ended, with and without fentry and kfuncs
# kernels: all
# seconds: 600
# machine: shared

. /payload/scenarios/lib.sh

btf=/sys/kernel/btf/vmlinux
fentry='psi_memstall_enter psi_memstall_leave'
kfuncs='bpf_task_from_pid bpf_send_signal_task'

# has FUNCTION...: whether the kernel describes them all.
has() {
    local function
    for function; do
        LC_ALL=C grep --null-data --text --quiet --line-regexp --fixed-strings "$function" "$btf" || return
    done
}

# without FUNCTION...: the kernel's description of itself, which knows these by other names. What stands there
# memwatch can neither be put before nor call: it finds another kernel.
without() {
    cp "$btf" described
    local function
    for function; do
        LC_ALL=C sed --null-data --in-place "s/^$function\$/X${function#?}/" described
    done
    mount --bind described "$btf"
}

# under_guard NAME MAX HIGH WORKLOAD: runs it under a memwatch that is stopped as soon as it has begun; sets $fate
# to whether the guard has ended it in a time that is enough for that.
under_guard() {
    local name=$1 max=$2 high=$3 run=$4
    MEMWATCH_CULPRIT_FILE=$PWD/$name.culprit "$memwatch" attach --report "$name.json" --memory-max "$max" \
        ${high:+--memory-high "$high"} --cmd \
        "until [ -e $PWD/$name.go ]; do sleep 0.2; done; exec $workload $run --seconds 60 --dir $scratch" </dev/null &
    local watch=$!
    expect "$name: the guard" "$(wait_until 60 stands_guard && echo stands)" stands
    touch "$name.go"
    expect "$name: the command" "$(wait_until 60 test -s "$name.culprit" && echo began)" began
    local culprit
    culprit=$(cat "$name.culprit")
    # At least one look at who stalls.
    sleep 1
    kill -STOP "$watch"
    wait_until 20 is_over "$culprit" || kill -KILL "$culprit"
    kill -CONT "$watch"
    wait "$watch"
    fate=$(report "$name" '[.victims[] | "\(.pid) by \(.killed_by)"] | join(", ")')
    [ "$fate" = "$culprit by guard" ] && fate=ended || fate="not reached${fate:+ ($fate)}"
}

# offers ID FUNCTION...: whether the doctor finds the check of that name well, and the kernel describes the functions.
offers() {
    local verdict
    verdict=$(jq -r --arg id "$1" '.checks[] | select(.id == $id).verdict' doctor.json)
    shift
    [ "$verdict" = fine ] && has "$@" && echo yes || echo no
}

# row VARIANT: one of the table in docs/KERNELS.md.
row() {
    local name=${1// /-}
    echo "=== $1"
    "$memwatch" doctor --json >doctor.json
    local lost thrashes hangs
    attach "$name-leak" --memory-max 100M -- "$workload" leak --dir "$scratch"
    expect_ended "$name-leak" killed_by_memwatch 137
    expect_victim "$name-leak" memwatch
    under_guard "$name-thrash" 64M '' thrash
    thrashes=$fate
    # Only of this one it is sure that the programs were there before its end.
    lost=$(report "$name-thrash" '[.features_lost[].feature | split(" (")[0]] | join(", ")')
    under_guard "$name-brake" 512M 64M leak
    hangs=$fate
    # A signal to another task goes out from a tick that finds a CPU at work.
    while :; do :; done &
    local busy=$!
    # It falls asleep before memwatch has been silent for too long, and the guard remembers what was before.
    printf '[policy]\nstall_window = "10s"\nguard_stall_permille = 5\n' >remember.toml
    MEMWATCH_CONFIG=$PWD/remember.toml under_guard "$name-asleep" 64M '' 'thrash --asleep-after-ms 3000'
    kill "$busy"
    echo "| $(uname -r | cut -d. -f1,2) | $1 | $(offers fentry $fentry) | $(offers kfuncs $kfuncs)" \
        "| ${lost:-nothing}" \
        "| ended | $thrashes | $hangs | $fate |" >>table
}

row 'as it is'
without $fentry
row 'without fentry'
umount "$btf"
# Where they are not there anyway, nothing can be taken away.
if has $kfuncs; then
    without $kfuncs
    row 'without kfuncs'
    umount "$btf"
fi
mount --bind /dev/null "$btf"
row 'without BTF'
umount "$btf"
cat table
