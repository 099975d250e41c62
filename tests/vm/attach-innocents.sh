#!/bin/bash
# shows: what is large or busy and harms nobody is left alone
# kernels: all
# ci: 6.12
# seconds: 120
# machine: shared

. /payload/scenarios/lib.sh

for innocent in steady stream; do
    attach $innocent --memory-max 64M -- "$workload" $innocent --seconds 15 --dir "$scratch"
    expect_ended $innocent finished 0
    expect_report $innocent victims '.victims | length' 0
    expect_report $innocent interventions '.interventions | length' 0
    # It did come close.
    expect_at_least "$innocent: peak in percent of the limit" \
        "$(report $innocent '.peak_bytes * 100 / .target.memory_max_bytes | floor')" 85
done
