#!/bin/bash
# shows: the BPF object loads, and nothing is lost but what docs/KERNELS.md says of this kernel
# kernels: all
# ci: all
# seconds: 90
# machine: shared

. /payload/scenarios/lib.sh

"$memwatch" doctor --json >doctor.json
expect 'the doctor' $? 0
expect 'important checks' \
    "$(jq -r '[.checks[] | select(.verdict == "important" or .verdict == "fatal").id] | join(" ")' doctor.json)" ''

case $(uname -r) in
    7.3.*) without='' ;;
    *) without="the guard's reach to sleeping processes" ;;
esac

# The programs load beside the command, and an old verifier takes its time.
attach loaded --memory-max 64M -- sleep 20
expect_ended loaded finished 0
expect_report loaded 'features lost' '[.features_lost[].feature | split(" (")[0]] | join(", ")' "$without"
expect_report loaded 'reclaim is counted' '.reclaim.memcg != null' true
