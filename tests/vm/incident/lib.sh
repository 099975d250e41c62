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
