#!/bin/bash
# shows: memwatch ends what a stopped systemd-oomd would have ended, hands back, and then leaves it to it again
# kernels: 6.12 7.3
# seconds: 400
# machine: fresh

. /payload/scenarios/lib.sh

start_service
manage 10% 2s
expect 'who looks after it' "$(status .oomd.taken_over)" false

kill -STOP "$(oomd_pid)"
expect 'the takeover within 6 s' "$(wait_until 6 status_is .oomd.taken_over true && echo came)" came
expect 'what is wrong' "$(status .oomd.state)" 'is stopped by a signal or a debugger'
thrash first
expect_result first signal
expect_sleeper
expect 'who were ended by memwatch' "$(said "SIGKILL to")" 1
expect 'what is said of it' "$(said 'SIGKILL to .*first.service.*in place of systemd-oomd')" 1

kill -CONT "$(oomd_pid)"
expect 'the hand-back' "$(wait_until 40 status_is .oomd.taken_over false && echo came)" came
thrash second
expect_result second oom-kill
expect_sleeper
expect 'who were ended by memwatch' "$(said "SIGKILL to")" 1
expect 'takeovers that were said' "$(said ': memwatch looks after what it was given')" 1
expect 'hand-backs that were said' "$(said 'is well again')" 1
