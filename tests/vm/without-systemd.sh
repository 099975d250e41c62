#!/bin/bash
# shows: on cgroup v2 without systemd root gets the kernel's limits, and a user who may make no cgroup a guard all the same
# kernels: all
# seconds: 150
# machine: shared

. /payload/scenarios/lib.sh

# What tells of systemd is out of sight, and memwatch stands at the top, where other inits leave a shell.
cat >bare <<'END'
#!/bin/bash
echo 0 >/sys/fs/cgroup/cgroup.procs
exec unshare --mount bash -c '
    mount -t tmpfs none /run/systemd
    mount -t tmpfs none /run/dbus
    exec "$@"' bare /usr/bin/memwatch "$@"
END
chmod +x bare
memwatch=$PWD/bare

attach root --memory-max 64M -- sh -c \
    'cgroup=$(sed s/^0::// /proc/self/cgroup); echo "$cgroup" >place.found
     cat "/sys/fs/cgroup$cgroup/memory.max" >limit.found'
expect_ended root finished 0
expect 'memory.max in the target' "$(cat limit.found)" $((64 << 20))
expect 'the target is at the top' "$(sed 's/-[0-9a-f]*$//' place.found)" /memwatch

attach leak --memory-max 200M -- "$workload" leak --dir "$scratch"
expect_ended leak killed_by_memwatch 137
expect_victim leak memwatch

# A user there has nobody to ask. The hog is an orphan in a session of its own when it grows. It refuses to
# without a limit, so there is one around all of this, three times as wide.
cd "$(mktemp -d "$PWD/user.XXXXXX")"
chmod 777 . ..
mkdir /sys/fs/cgroup/around
echo 600M >/sys/fs/cgroup/around/memory.max
cat >bare <<'END'
#!/bin/bash
echo 0 >/sys/fs/cgroup/around/cgroup.procs
exec unshare --mount bash -c '
    mount -t tmpfs none /run/systemd
    mount -t tmpfs none /run/dbus
    exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$PWD" "$@"' bare /usr/bin/memwatch "$@"
END
chmod +x bare
"$PWD/bare" attach --report tree.json --memory-max 200M -- sh -c "
    (setsid $workload leak --rate 20M --culprit tree.culprit &)
    until [ -s tree.culprit ]; do sleep 0.1; done
    while kill -0 \$(cat tree.culprit) 2>/dev/null; do sleep 0.1; done
    exit 3" </dev/null
code=$?
expect_ended tree finished_with_kills 3
expect_victim tree memwatch
expect_report tree 'its cgroup' .target.cgroup_path null
expect_report tree 'who enforces the limit' .target.limit_enforcer agent
expect 'notes of that' "$(report tree '[.notes[] | select(startswith("no cgroup can be had"))] | length')" 1
rmdir /sys/fs/cgroup/around
