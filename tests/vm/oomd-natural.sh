#!/bin/bash
# shows: without swap, five hogs that fill the machine end before anybody else is kept from running for 100 ms
# kernels: 6.12 7.3
# seconds: 500
# machine: fresh

. /payload/scenarios/lib.sh

# Half of the machine is in use, so that a hog can fill the rest below a limit that it must have.
mkdir /run/ballast
mount -t tmpfs -o size=1100M tmpfs /run/ballast
dd if=/dev/zero of=/run/ballast/half bs=1M count=1050 status=none

start_service
manage 40% 5s
expect 'swap' "$(swapon --show)" ''
ooms=$(oom_kills)
for round in 1 2 3 4 5; do
    systemd-run --quiet --unit="bystander-$round" "$workload" bystander --seconds 200 --gap "$PWD/gap-$round"
    systemd-run --quiet --slice=managed.slice --unit="hog-$round" --property=MemoryMax=950M \
        "$workload" leak --seconds 90
    expect_result "hog-$round" signal
    expect "$round: the bystander" "$(systemctl is-active "bystander-$round")" active
    systemctl stop "bystander-$round"
    gap=$(cat "gap-$round")
    echo "$round: the longest gap was $gap ms"
    expect_at_least "$round: 99 less the longest gap" $((99 - gap)) 0
    expect_sleeper
    expect "$round: who were ended by memwatch" "$(said "SIGKILL to")" "$round"
done
expect 'kills by the OOM killer' $(($(oom_kills) - ooms)) 0
expect 'systemd-oomd' "$(oomd_pid >/dev/null && echo runs)" runs
rm /run/ballast/half
umount /run/ballast
