# What the two scenarios of the incident share: the machine as it was, and a bystander who looks on.

# systemd-oomd hangs, and the suite is where its user would run it.
as_it_was() {
    kill -STOP "$(systemctl show -P MainPID systemd-oomd)"
    cp -r /payload/scenarios/incident/suite tests
    # Nobody has it in the page cache.
    sync --file-system tests
}

# bystander NAME COMMAND: runs it while somebody in another cgroup, with no privilege, looks on, and leaves in
# NAME.json what that one felt.
bystander() {
    local name=$1
    shift
    systemd-run --quiet --unit="bystander-$name" --property=KillMode=mixed \
        python3 /payload/scenarios/incident/bystander.py "$PWD/$name.json"
    sleep 2
    "$@"
    systemctl stop "bystander-$name"
    echo "the bystander $name: $(cat "$name.json")"
}

# guarded_between_busy ATTACH...: the suite under memwatch with these options, with a bystander before, beside and
# after. As many busy processes as the suite has workers, and memory free: what is late then waits for a CPU. An
# emulated machine on a busy one is late by itself.
guarded_between_busy() {
    busy() { timeout 20 "$BASH" -c 'while :; do :; done & while :; do :; done'; }
    guarded() { attach incident "$@" --cmd 'pytest tests/ -n 2' >pytest.txt; }
    bystander before busy
    bystander guarded guarded "$@"
    bystander after busy
    cat pytest.txt
    kill -CONT "$(systemctl show -P MainPID systemd-oomd)"
}

# The promise is 250 ms. Where an answer takes more than half of that while memory is free, it is twice what it takes
# then.
expect_answers() {
    local slowest busy allowed=250
    slowest=$(jq .longest_answer_ms guarded.json)
    busy=$(jq --slurp 'map(.longest_answer_ms) | max' before.json after.json)
    [ "$busy" -gt 125 ] && allowed=$((2 * busy))
    echo "the slowest answers: $slowest ms, beside busy loops alone $busy ms; allowed are $allowed ms"
    expect "the slowest answer is one of at most $allowed ms" "$([ "$slowest" -le "$allowed" ] && echo yes)" yes
}
