#!/bin/bash
# shows: a user without any privilege gets a scope of the own systemd, with the kernel's limits, and a kill
# kernels: all
# ci: 6.12
# seconds: 150
# machine: shared

. /payload/scenarios/lib.sh

make_users user

# as_user NAME ARGUMENT...: the same as `attach`, by the user, in a login session.
as_user() {
    local name=$1
    shift
    echo "--- $name: the user's memwatch attach $*"
    as user -E MEMWATCH_CULPRIT_FILE="$PWD/$name.culprit" \
        /usr/bin/memwatch attach --report "$name.json" "$@"
    code=$?
}

as_user limit --memory-max 64M -- sh -c \
    'cgroup=$(sed s/^0::// /proc/self/cgroup); echo "$cgroup"; cat "/sys/fs/cgroup$cgroup/memory.max" >limit.found'
expect_no_target limit
expect_ended limit finished 0
expect 'memory.max in the target' "$(cat limit.found)" $((64 << 20))
expect_report limit 'whose scope it is' \
    '.target.cgroup_path | test("/user@[0-9]+.service/.*/memwatch-[0-9a-f]+.scope/memwatch-[0-9a-f]+$")' true

as_user leak --memory-max 100M -- /usr/local/bin/workload leak --dir "$scratch"
expect_no_target leak
expect_ended leak killed_by_memwatch 137
expect_victim leak memwatch

# Only systemd could move who runs on, and has no other place.
as_user leftover -- sh -c 'sleep 15 & exit 0'
expect_ended leftover finished 0
expect_report leftover 'notes of who runs on' \
    '[.notes[] | select(test("^1 process of the target runs on in .*, without limits"))] | length' 1
wait_until 30 test ! -e "$(report leftover .target.cgroup_path)"
expect_no_target leftover
