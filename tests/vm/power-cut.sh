#!/bin/bash
# shows: after a power cut in the middle of a freeze the black box tells the last seconds, 2 of 2 times
# kernels: 6.12
# seconds: 800
# machine: fresh

. /payload/scenarios/lib.sh
. /payload/scenarios/power-cut/lib.sh

power_cuts 2
