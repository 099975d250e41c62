# What scenarios share: running memwatch, and holding what came of it against what must be. A scenario
# includes it first. It goes on after what is not so, and fails at its end; `cargo xtask vm` shows the lines
# that begin with `not so`. Reports and other files are left in the working directory, which is brought back.

set -u
payload=/payload
memwatch=/usr/bin/memwatch
workload=$payload/workload
package=$payload/memwatch.deb
# On the disk: what lies in memory has no page cache that could be reclaimed.
scratch=/var/tmp
failures=0

# expect WHAT FOUND EXPECTED
expect() {
    if [ "$2" = "$3" ]; then
        echo "so: $1: $2"
    else
        echo "not so: $1: ${2:-nothing}, and must be ${3:-nothing}"
        failures=$((failures + 1))
    fi
}

# expect_at_least WHAT FOUND LEAST
expect_at_least() {
    local enough=no
    [ "${2:-0}" -ge "$3" ] && enough=yes
    expect "$1 (${2:-nothing}) is at least $3" "$enough" yes
}

# expect_at_most WHAT FOUND MOST
expect_at_most() {
    local few=no
    [ -n "$2" ] && [ "$2" -le "$3" ] && few=yes
    expect "$1 (${2:-nothing}) is at most $3" "$few" yes
}

# wait_until SECONDS COMMAND...: whether the command succeeded in that time.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# is_over PID: whether it has ended; it may stay in sight until its parent looks.
is_over() { ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }

# Whether the guard in the kernel stands over a target. It cannot tell while the programs are being loaded.
stands_guard() { "$memwatch" guard list 2>/dev/null | grep -q ': armed, its memwatch lives'; }

# How many processes the kernel's OOM killer has ended.
oom_kills() { sed -n 's/^oom_kill //p' /proc/vmstat; }

# Installs the package, once in a machine. The service stays off, as where policy-rc.d(8) says so: a scenario
# that is about it begins with start_service.
install_package() {
    [ -e $memwatch ] && return
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    dpkg --install $package
    expect 'the installation of the package' $? 0
    rm /usr/sbin/policy-rc.d
}

# start_service: memwatch's, as an administrator does, who waits until it is up.
start_service() {
    systemctl start memwatch.service
    expect 'the service' "$(systemctl is-active memwatch.service)" active
}

# attach NAME ARGUMENT...: runs `memwatch attach`, leaves NAME.json and, for `memwatch replay`, NAME.jsonl;
# sets $code.
attach() {
    local name=$1
    shift
    local ooms
    ooms=$(oom_kills)
    echo "--- $name: memwatch attach $*"
    MEMWATCH_CULPRIT_FILE=$PWD/$name.culprit \
        "$memwatch" attach --report "$name.json" --record "$name.jsonl" "$@" </dev/null
    code=$?
    expect "$name: kills by the OOM killer" $(($(oom_kills) - ooms)) 0
    expect_no_target "$name"
}

# report NAME FILTER: what jq finds in NAME.json.
report() { jq -r "$2" "$1.json"; }

# expect_report NAME WHAT FILTER EXPECTED
expect_report() { expect "$1: $2" "$(report "$1" "$3")" "$4"; }

# expect_ended NAME VERDICT CODE
expect_ended() {
    expect_report "$1" verdict .verdict "$2"
    expect "$1: exit code" "$code" "$3"
    expect_report "$1" 'exit code in the report' .exit_code "$3"
}

# expect_victim NAME BY: the culprit, once, and nobody else.
expect_victim() {
    expect_report "$1" victims '[.victims[] | "\(.pid) by \(.killed_by)"] | join(", ")' \
        "$(cat "$1.culprit") by $2"
}

# expect_no_target NAME: its cgroup is gone; the kernel lets go of one a moment after its last process.
expect_no_target() {
    local cgroup
    cgroup=$(report "$1" .target.cgroup_path)
    expect "$1: a cgroup is named" "${cgroup:+yes}" yes
    wait_until 3 test ! -e "$cgroup"
    expect "$1: what is left of its cgroup" "$(ls -d "$cgroup" 2>/dev/null)" ''
}

# status FILTER: what jq finds in what memwatch's service says of itself.
status() { "$memwatch" status --json | jq -r "$1"; }

# status_is FILTER EXPECTED: for `wait_until`.
status_is() { [ "$(status "$1" 2>/dev/null)" = "$2" ]; }

# incidents FILTER: what jq finds in the incidents that memwatch's service has kept, in their order, in one line.
# They are copied here, so that they are brought back.
incidents() {
    cp -rT /var/lib/memwatch/incidents incidents
    cat incidents/*.json 2>/dev/null | jq -r "$1" | paste -sd, -
}

# incidents_are KINDS: for `wait_until`.
incidents_are() { [ "$(incidents .kind)" = "$1" ]; }

# expect_incidents KINDS
expect_incidents() {
    wait_until 10 incidents_are "$1"
    expect 'the incidents' "$(incidents .kind)" "$1"
}

# said WORDS: how many lines with these words memwatch's service has in the journal.
said() { journalctl --boot --unit=memwatch.service --output=cat | grep -c -- "$1"; }

# manage LIMIT SECONDS: gives managed.slice to systemd-oomd, with a service in it that sleeps on more memory than
# any thrasher has, and waits until systemd-oomd runs and memwatch has learned of it.
manage() {
    printf '[Slice]\nManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=%s\n%s=%s\n' \
        "$1" ManagedOOMMemoryPressureDurationSec "$2" >/run/systemd/system/managed.slice
    systemctl daemon-reload
    # shellcheck disable=SC2016
    systemd-run --quiet --slice=managed.slice --unit=sleeper \
        bash -c 'held=$(head --bytes=100M /dev/zero | tr "\\0" .); sleep infinity; echo "$held"'
    expect 'who only sleeps there' "$(wait_until 60 sleeps && echo sleeps)" sleeps
    expect 'systemd-oomd' "$(wait_until 30 oomd_pid >/dev/null && echo runs)" runs
    expect 'what memwatch knows of it' \
        "$(wait_until 30 status_is '.oomd.managed_units > 0' true && echo all)" all
}

sleeps() { [ "$(systemctl show sleeper --property=MemoryCurrent --value)" -gt 100000000 ] 2>/dev/null; }

oomd_pid() { pidof systemd-oomd; }

# expect_takeover SINCE WHY: it came, and within 6 s of a time in ms, and that is what is wrong.
expect_takeover() {
    expect 'the takeover' "$(wait_until 10 status_is .oomd.taken_over true && echo came)" came
    expect 'what is wrong' "$(status .oomd.state)" "$2"
    wait_until 10 incidents_are takeover
    local at
    at=$(date --date="$(incidents 'select(.kind == "takeover").started_at')" +%s%3N)
    expect_at_most 'ms until the takeover' $((at - $1)) 6000
}

# expect_hand_back SECONDS
expect_hand_back() {
    expect 'the hand-back' "$(wait_until "$1" status_is .oomd.taken_over false && echo came)" came
}

# expect_kills NUMBER: so many cgroups were ended by memwatch, by its status and in the journal.
expect_kills() {
    expect 'who were ended by memwatch' "$(status .oomd.kills) $(said 'SIGKILL to')" "$1 $1"
}

# thrash NAME: a service in managed.slice that thrashes at its own limit, which is what raises its pressure.
thrash() {
    systemd-run --quiet --slice=managed.slice --unit="$1" --property=MemoryMax=64M \
        "$workload" thrash --seconds 120 --dir "$scratch"
}

is_inactive() { ! systemctl is-active --quiet "$1"; }

# expect_result SERVICE RESULT: it has ended, and systemd says so of how.
expect_result() {
    expect "$1" "$(wait_until 60 is_inactive "$1" && systemctl show "$1" --property=Result --value)" "$2"
}

# expect_sleeper: who did nothing in managed.slice is alive.
expect_sleeper() { expect 'who only sleeps there' "$(systemctl is-active sleeper)" active; }

# The end of every scenario: memwatch has left nothing anywhere.
finish() {
    # The slice would stay without it, and its cgroup.
    systemctl stop memwatch.slice 2>/dev/null
    wait_until 3 test ! -e /run/memwatch
    expect 'what is left in /run' "$(ls -d /run/memwatch 2>/dev/null)" ''
    expect 'cgroups that are left' "$(find /sys/fs/cgroup -name 'memwatch-*')" ''
    # Without a code, exit in a trap ends with what was the code before it.
    exit $((failures > 0))
}
trap finish EXIT
install_package

# as USER COMMAND...: in a login session of that user.
as() {
    local user=$1
    shift
    systemd-run --quiet --wait --pipe -p PAMName=login -p User="$user" -p WorkingDirectory="$PWD" "$@" </dev/null
}

# Makes users, and a directory `out` that the first of them may write to, with the workload in everybody's path.
make_users() {
    local user
    for user in "$@"; do useradd --create-home "$user"; done
    install -d -o "$1" out
    cd out
    install -m 755 "$workload" /usr/local/bin
}

# A leak that begins when the file `go` is there, under memwatch with these options, in the background: its pid is
# in `watch`. Returns when the guard stands over it.
start_waiting_leak() {
    "$memwatch" attach --report leak.json "$@" --cmd \
        "until [ -e $PWD/go ]; do sleep 0.2; done; exec $workload leak --culprit $PWD/leak.culprit --seconds 100" \
        </dev/null &
    watch=$!
    expect 'the guard' "$(wait_until 60 stands_guard && echo stands)" stands
}

# The leak goes, while its memwatch is stopped, and must be ended by the guard.
expect_leak_ended_by_guard() {
    touch go
    expect 'the leak' "$(wait_until 20 test -s leak.culprit && echo began)" began
    expect 'the leak' "$(wait_until 60 is_over "$(cat leak.culprit)" && echo ended)" ended
    kill -CONT "$watch"
    wait "$watch"
    code=$?
    expect_ended leak killed_by_guard 137
    expect_victim leak guard
}
