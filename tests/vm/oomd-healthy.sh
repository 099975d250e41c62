#!/bin/bash
# shows: while systemd-oomd does its work, five times over, memwatch does none of it
# kernels: all
# seconds: 500
# machine: fresh

. /payload/scenarios/lib.sh

start_service
manage 10% 2s
for round in 1 2 3 4 5; do
    thrash "hog-$round"
    expect_result "hog-$round" oom-kill
    expect_sleeper
done
expect_kills 0
expect 'what memwatch said of it' "$(said systemd-oomd)" 0
expect 'who looks after it' "$(status '.oomd | "\(.taken_over) \(.state)"')" 'false well'
expect_incidents ''
