#!/bin/bash
# Runs in a guest, as root: the scenarios that the payload lists, one after another, each as a service of
# its own, in a directory of its own on the disk that goes back. Says on the console what it does.
set -u

# At the level of an error, which any console shows.
mark() { echo "<3>memwatch-vm: $*" >/dev/kmsg; }

while read -r name seconds <&3; do
    mkdir "/out/$name"
    began=$(date +%s)
    mark begin "$name"
    systemd-run --quiet --wait --collect --unit="scenario-$name" \
        --property=WorkingDirectory="/out/$name" \
        --property=StandardOutput="file:/out/$name/log.txt" --property=StandardError=inherit \
        timeout --kill-after=5 "$seconds" /payload/scenarios/"$name.sh"
    code=$?
    journalctl --since="@$began" --output=short-monotonic >"/out/$name/journal.txt"
    # A machine that dies later takes nothing of this with it.
    sync --file-system /out
    mark end "$name" "$code"
done 3</payload/list
