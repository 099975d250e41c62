#!/bin/bash
# shows: where systemd-oomd is masked memwatch does nothing of its; where it is gone, memwatch stands in
# kernels: all
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
ended=$(date +%s%3N)
systemctl stop systemd-oomd.service
expect_takeover "$ended" 'does not run'
expect_result gone signal
expect_sleeper
expect_kills 1

systemctl start systemd-oomd.service
expect_hand_back 40
expect_incidents takeover,kill,hand_back
