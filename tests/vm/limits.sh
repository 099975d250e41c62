#!/bin/bash
# shows: the limits that memwatch tells of are the kernel's, under systemd, in a delegated subtree, and nested
# kernels: all
# ci: 6.12
# seconds: 240
# machine: shared

. /payload/scenarios/lib.sh

mib=$((1 << 20))

# What a command in a target runs to leave its cgroup's path and limits in NAME.cgroup, NAME.max and NAME.high.
found() {
    echo "cgroup=/sys/fs/cgroup\$(sed s/^0::// /proc/self/cgroup); echo \$cgroup >$1.cgroup
          cat \$cgroup/memory.max >$1.max; cat \$cgroup/memory.high >$1.high"
}

# expect_limits NAME MAX [HIGH]: memory.max is MAX bytes in the kernel and in the report, and memory.high HIGH; without
# it the default, 47/48 of MAX in whole pages of the largest size, 64 KiB.
expect_limits() {
    local page=$((64 << 10))
    local high=${3:-$((($2 - $2 / 48) / page * page))}
    expect "$1: memory.max in the kernel" "$(cat "$1.max")" "$2"
    expect_report "$1" memory.max .target.memory_max_bytes "$2"
    expect "$1: memory.high in the kernel" "$(cat "$1.high")" "$high"
    expect_report "$1" memory.high .target.memory_high_bytes "$high"
    expect_report "$1" 'the target' .target.cgroup_path "$(cat "$1.cgroup")"
    expect_report "$1" 'who holds it' '"\(.target.memory_layout), \(.target.limit_enforcer)"' 'v2, kernel'
}

attach max --memory-max 64M -- sh -c "$(found max)"
expect_ended max finished 0
expect_limits max $((64 * mib))

attach both --memory-max 64M --memory-high 32M -- sh -c "$(found both)"
expect_ended both finished 0
expect_limits both $((64 * mib)) $((32 * mib))

# Without a word the machine keeps a part.
attach auto -- sh -c "$(found auto)"
expect_ended auto finished 0
expect_limits auto "$(report auto .target.memory_max_bytes)"
expect 'memory.max without a word leaves something to the machine' \
    "$(awk -v max="$(cat auto.max)" '/^MemTotal/ { print (max > 0 && max < $2 * 1024) }' /proc/meminfo)" 1

# systemd knows the scope, and its reload leaves the limits alone.
attach scope --memory-max 64M -- sh -c \
    "cgroup=\$(sed s/^0::// /proc/self/cgroup)
     systemctl show -P Delegate \$(basename \$(dirname \$cgroup)) >scope.delegated
     systemctl daemon-reload; $(found scope)"
expect_ended scope finished 0
expect 'the scope is delegated' "$(cat scope.delegated)" yes
expect_limits scope $((64 * mib))

# One inside the other: the inner target lies in the outer. A cgroup with processes in it cannot hand a controller
# down, so that memwatch itself holds the inner one to its limit, and the kernel both of them to the outer's.
nested() {
    attach "outer-$1" --memory-max "$2" -- \
        "$memwatch" attach --report "inner-$1.json" --memory-max "$3" -- \
        "$workload" leak --rate 50M --culprit "$PWD/$1.culprit" --dir "$scratch"
    expect "$1: where the inner target lies" "$(dirname "$(report "inner-$1" .target.cgroup_path)")" \
        "$(report "outer-$1" .target.cgroup_path)"
    expect_report "inner-$1" 'who holds it' '"\(.target.memory_layout), \(.target.limit_enforcer)"' 'agent, agent'
    expect "$1: the leak" "$(is_over "$(cat "$1.culprit")" && echo ended)" ended
}
# expect_ended_by WHICH OTHER NAME: WHICH memwatch has ended the leak, and OTHER nobody.
expect_ended_by() {
    expect_report "$1-$3" victims '[.victims[] | "\(.pid) by \(.killed_by)"] | join(", ")' \
        "$(cat "$3.culprit") by memwatch"
    expect_report "$2-$3" victims '.victims | length' 0
}
nested tight-inside 200M 80M
expect_ended_by inner outer tight-inside
nested tight-outside 96M 1G
expect_ended_by outer inner tight-outside

# A subtree that systemd has handed over to a user: no session, no systemd of the user's own.
useradd --create-home limited
install -d -o limited delegated
install -m 755 "$memwatch" "$workload" /usr/local/bin
cat >delegated/run <<'END'
own=/sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)
mkdir "$own/shell" && echo $$ >"$own/shell/cgroup.procs" && echo +memory >"$own/cgroup.subtree_control" || exit
echo "$own" >own
memwatch attach --report user.json --memory-max 64M -- sh -c "$1"
memwatch attach --report leak.json --memory-max 200M -- workload leak --culprit leak.culprit --dir /var/tmp
END
cd delegated
systemd-run --quiet --wait --pipe -p User=limited -p Delegate=yes -p WorkingDirectory="$PWD" \
    -E PATH=/usr/local/bin:/usr/bin:/bin bash run "$(found user)" </dev/null
code=$?
expect_ended leak killed_by_memwatch 137
expect_victim leak memwatch
expect_limits user $((64 * mib))
expect 'where the user has targets' "$(dirname "$(cat user.cgroup)")" "$(cat own)"
expect_no_target user
expect_no_target leak
