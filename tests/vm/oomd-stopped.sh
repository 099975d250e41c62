#!/bin/bash
# shows: memwatch ends what a stopped systemd-oomd would have ended, hands back, and then leaves it to it again
# kernels: all
# ci: 6.12
# seconds: 400
# machine: fresh

. /payload/scenarios/lib.sh

start_service
manage 10% 2s
expect 'who looks after it' "$(status .oomd.taken_over)" false

stopped=$(date +%s%3N)
kill -STOP "$(oomd_pid)"
expect_takeover "$stopped" 'is stopped by a signal or a debugger'
thrash first
expect_result first signal
expect_sleeper
expect_kills 1
expect 'what is said of it' "$(said 'SIGKILL to .*first.service.*in place of systemd-oomd')" 1

# systemd-oomd knows nothing of a kill that is not its own. It would see the average, which is still above the
# limit, and end the next one for it.
is_calm() { [ "$(sed -n 's/^full avg10=\([0-9]*\).*/\1/p' /sys/fs/cgroup/managed.slice/memory.pressure)" -lt 5 ]; }
expect 'the pressure' "$(wait_until 60 is_calm && echo 'is over')" 'is over'
kill -CONT "$(oomd_pid)"
expect_hand_back 40
# What systemd-oomd chooses among the same is what memwatch chose.
thrash second
expect_result second oom-kill
expect_sleeper
expect_kills 1
expect 'takeovers that were said' "$(said ': memwatch looks after what it was given')" 1
expect 'hand-backs that were said' "$(said 'is well again')" 1
expect_incidents takeover,kill,hand_back
expect 'whom the incident names' "$(incidents '.target.cgroup_path // empty')" \
    /sys/fs/cgroup/managed.slice/first.service
expect 'what for' "$(incidents '.interventions[].rule')" oomd_pressure
