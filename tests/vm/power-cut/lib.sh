# What the scenarios of a power cut share: the machine freezes, its power is cut, and after the reboot memwatch tells
# the last seconds. Each life of the machine looks at the end of the one before.

export MEMWATCH_STATE=$PWD/state

# Somebody holds most of the memory, and what is left is too little for who reads a file over and over: everybody
# waits for pages that come and go. memwatch only looks on.
freeze() {
    kill -STOP "$(systemctl show -P MainPID systemd-oomd)"
    # An emulated machine takes long to fill page by page.
    echo always >/sys/kernel/mm/transparent_hugepage/enabled
    systemd-run --quiet --unit=holder --property=OOMScoreAdjust=-1000 \
        python3 -c 'import time; held = b"x" * (1550 << 20); time.sleep(1000)'
    expect 'the memory' "$(wait_until 300 is_scarce && echo scarce)" scarce
    # Whoever waits for the disk waits for as long as on one that is slow: an emulated one answers from the host's
    # memory.
    systemctl set-property --runtime system.slice IOReadIOPSMax="$scratch 200"
    systemd-run --quiet --unit=watched --property=StandardError="file:$PWD/watched.txt" \
        -E MEMWATCH_STATE="$MEMWATCH_STATE" \
        "$memwatch" attach --dry-run --memory-max 200M --memory-high none -- \
        "$workload" thrash --threads 4 --seconds 600 --dir "$scratch"
}

# Whether less than 300 MiB can be had.
is_scarce() { [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -lt 307200 ]; }

# some_us: how long somebody of the machine has waited for memory.
some_us() { sed -n 's/^some .*total=//p' /proc/pressure/memory; }

# Whether the machine stalls, for a third of a second.
stalls() {
    local before
    before=$(some_us)
    sleep 0.3
    [ $(($(some_us) - before)) -ge 100000 ]
}

# The power goes, at some moment of the freeze. Does not return.
cut() {
    expect 'the freeze' "$(wait_until 300 stalls && echo began)" began
    sleep "$((1 + RANDOM % 6)).$((RANDOM % 10))"
    cat /proc/sys/kernel/random/boot_id >boot_id
    # Past the page cache's own time: this file is all that the next life knows of this one.
    date +%s%3N >cut_at
    sync boot_id cut_at
    echo '<3>memwatch-vm: cut' >/dev/kmsg
    sleep 60
    echo 'not so: the power was cut'
    exit 1
}

# Holds what is told of the life before against what is known of it.
expect_last_seconds() {
    local life=$1 incident torn=false
    # Every second time the cut was in the middle of a write.
    if [ $((life % 2)) = 0 ]; then
        python3 /payload/scenarios/power-cut/tear.py state/blackbox
        torn=true
    fi
    # It asks the journal first, which takes long on an emulated machine.
    "$memwatch" attach -- sh -c "for second in \$(seq 30); do
        sleep 1
        [ \$(ls state/incidents 2>/dev/null | wc -l) -ge $life ] && exec sleep 2
    done; exit 0" >recovered."$life".txt 2>&1
    incident=$(ls -t state/incidents/*.json | head -n 1)
    expect "life $life: incidents" "$(ls state/incidents | wc -l)" "$life"
    cp "$incident" hard_reset.json
    expect_report hard_reset "life $life: kind" .kind hard_reset
    expect_report hard_reset "life $life: boot" .host.boot_id "$(cat boot_id)"
    expect_report hard_reset "life $life: a page was torn, and is told of as such" \
        '.notes | map(select(test("^1 of its pages were torn"))) | length > 0' "$torn"
    local ended
    ended=$(date --date="$(report hard_reset .ended_at)" +%s%3N)
    # What it says is from before the cut, and not from long before.
    expect_at_most "life $life: ms from the last page to the cut" $(($(cat cut_at) - ended)) 5000
    expect_at_least "life $life: looks" "$(report hard_reset '.flight.looks | length')" 10
    expect_report hard_reset "life $life: looks in the last 5 s before that" \
        '.flight | (.looks[-1].at_us) as $last | [.looks[] | select(.at_us > $last - 5000000)] | length > 3' true
    expect_report hard_reset "life $life: memory of the machine is known" '.machine.memory_available_bytes > 0' true
    expect_report hard_reset "life $life: who was there" '.notes | map(select(test("biggest.*python3"))) | length > 0' true
    # Told once.
    "$memwatch" attach -- sleep 2 2>/dev/null
    expect "life $life: incidents, after another start" "$(ls state/incidents | wc -l)" "$life"
}

# power_cuts COUNT
power_cuts() {
    local lives
    lives=$(cat lives 2>/dev/null || echo 0)
    [ "$lives" -gt 0 ] && expect_last_seconds "$lives"
    # What was not so in a life that has ended counts.
    cat log.*.txt 2>/dev/null | grep '^not so: '
    cp log.txt "log.$lives.txt"
    sync "log.$lives.txt"
    [ "$lives" -ge "$1" ] && return
    echo $((lives + 1)) >lives
    sync lives
    freeze
    cut
}
