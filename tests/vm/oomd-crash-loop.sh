#!/bin/bash
# shows: a systemd-oomd that dies again and again is stood in for once, and gets its units back when it lives
# kernels: all
# seconds: 400
# machine: fresh

. /payload/scenarios/lib.sh

mkdir -p /run/systemd/system/systemd-oomd.service.d
printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/systemd-oomd.service.d/loop.conf
start_service
manage 10% 2s

for _ in $(seq 12); do
    kill -KILL "$(oomd_pid)"
    sleep 3
done &
loop=$!
expect 'the takeover' "$(wait_until 25 status_is .oomd.taken_over true && echo came)" came
thrash looped
expect_result looped signal
expect_sleeper
wait $loop
expect_hand_back 60
expect 'takeovers that were said' "$(said ': memwatch looks after what it was given')" 1
expect 'hand-backs that were said' "$(said 'is well again')" 1
expect_kills 1
expect_incidents takeover,kill,hand_back
# Which of the two is the moment's: a start takes as long as a look is apart on a slow machine.
expect 'what else was wrong' "$(incidents .takeover.fault | tr , '\n' | grep -cvxE 'restarting|gone')" 0
