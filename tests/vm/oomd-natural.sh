#!/bin/bash
# shows: without swap, five hogs that fill the machine end before anybody else is kept from running for 100 ms
# kernels: all
# seconds: 500
# machine: fresh

. /payload/scenarios/lib.sh

# bystander NAME ARGUMENT...: one who wants to run every 10 ms, and writes down in gap-NAME the longest that it
# could not.
bystander() {
    systemd-run --quiet --unit="bystander-$1" "$workload" bystander --seconds 200 --gap "$PWD/gap-$1" "${@:2}"
}

# Half of the machine is in use, so that a hog can fill the rest below a limit that it must have.
mkdir /run/ballast
mount -t tmpfs -o size=1100M tmpfs /run/ballast
dd if=/dev/zero of=/run/ballast/half bs=1M count=1000 status=none

start_service
manage 40% 5s
expect 'swap' "$(swapon --show)" ''
ooms=$(oom_kills)
for round in 1 2 3 4 5; do
    bystander "$round"
    # No shortage keeps this one from running. What does is the machine: an emulated CPU stands still while others
    # have the real one. That is taken off.
    bystander "$round-control" --first
    systemd-run --quiet --slice=managed.slice --unit="hog-$round" --property=MemoryMax=950M \
        "$workload" leak --seconds 90
    expect_result "hog-$round" signal
    for who in "$round" "$round-control"; do
        expect "$who: the bystander" "$(systemctl is-active "bystander-$who")" active
        systemctl stop "bystander-$who"
    done
    gap=$(cat "gap-$round")
    control=$(cat "gap-$round-control")
    echo "$round: the longest gap was $gap ms, that of the control $control ms"
    # Of either, 10 ms are sleep.
    expect_at_most "$round: the longest gap in ms" $((gap - control + 10)) 99
    expect_sleeper
    expect_kills "$round"
done
expect 'kills by the OOM killer' $(($(oom_kills) - ooms)) 0
expect 'systemd-oomd' "$(oomd_pid >/dev/null && echo runs)" runs
expect 'who looks after it' "$(status .oomd.taken_over)" false
expect_incidents kill,kill,kill,kill,kill
expect 'what for' "$(incidents '.interventions[].rule' | tr , '\n' | uniq)" machine_exhaustion
rm /run/ballast/half
umount /run/ballast
