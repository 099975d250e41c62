#!/bin/bash
# shows: where systemd-oomd is masked memwatch does nothing of its; where it is gone, memwatch stands in
# kernels: 6.12 7.3
# seconds: 400
# machine: fresh

. /payload/scenarios/lib.sh

start_service
manage 10% 2s

# Who masks it does not want it.
systemctl mask --quiet --runtime --now systemd-oomd.service
expect 'what memwatch knows of it' "$(wait_until 30 status_is .oomd.state 'not installed' && echo that)" that
thrash unwanted
sleep 20
expect 'who thrashes' "$(systemctl is-active unwanted)" active
expect 'who looks after it' "$(status '.oomd | "\(.taken_over) \(.managed_units)"')" 'false 0'
systemctl stop unwanted
systemctl unmask --quiet --runtime systemd-oomd.service
systemctl start systemd-oomd.service
# memwatch asks once a minute while there is nothing to do.
expect 'what memwatch knows of it' "$(wait_until 90 status_is '.oomd.managed_units > 0' true && echo all)" all

# Every start of a managed unit starts it again, so it is ended when the unit runs.
thrash gone
systemctl stop systemd-oomd.service
expect 'the takeover within 6 s' "$(wait_until 6 status_is .oomd.taken_over true && echo came)" came
expect 'what is wrong' "$(status .oomd.state)" 'does not run'
expect_result gone signal
expect_sleeper
expect 'who were ended by memwatch' "$(said "SIGKILL to")" 1

systemctl start systemd-oomd.service
expect 'the hand-back' "$(wait_until 40 status_is .oomd.taken_over false && echo came)" came
