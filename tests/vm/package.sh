#!/bin/bash
# shows: the package brings a service that runs in a sandbox with its memory kept, and takes all of it away again
# kernels: all
# seconds: 240
# machine: fresh

. /payload/scenarios/lib.sh

dpkg --purge memwatch
expect 'the removal of the package' $? 0
# The guests' dpkg is told to leave manuals out.
dpkg --path-include='/usr/share/man/*' --path-include='/usr/share/doc/*' --install $package
expect 'the installation of the package' $? 0

unit=memwatch.service
of_unit() { systemctl show --property="$1" --value "${2:-$unit}"; }
slice=/sys/fs/cgroup/memwatch.slice
files() { ls -d "$@" 2>/dev/null; }

# As docs/KERNELS.md has it.
without() { case $(uname -r) in 7.3.*) ;; *) echo "the guard's reach to sleeping processes" ;; esac; }

# Installing it has enabled and started it.
expect 'the service' "$(systemctl is-active $unit)" active
expect 'at the next start' "$(systemctl is-enabled $unit)" enabled
expect 'who runs' "$(cat "/proc/$(of_unit MainPID)/comm")" memwatch
expect 'its cgroup' "$(of_unit ControlGroup)" /memwatch.slice/$unit
expect 'memory kept for the service' "$(cat $slice/$unit/memory.min)" $((64 << 20))
expect 'memory kept for all above it' "$(cat $slice/memory.min)" $((64 << 20))
expect 'systemd-oomd is told to omit it' "$(of_unit ManagedOOMPreference)" omit
expect 'its place with the OOM killer' "$(cat "/proc/$(of_unit MainPID)/oom_score_adj")" -1000
expect 'the time of its watchdog' "$(of_unit WatchdogUSec)" 10s

# The programs of the guard are where every memwatch finds them, though the service has mounts of its own.
expect 'mounts of its own' \
    "$([ "$(readlink /proc/1/ns/mnt)" != "$(readlink "/proc/$(of_unit MainPID)/ns/mnt")" ] && echo yes)" yes
# They are loaded beside what it does from the start.
places() { grep -c '^[^ ]* /run/memwatch/bpf-[^ ]* bpf ' /proc/mounts; }
are_pinned() { [ -n "$(files /run/memwatch/bpf-*/complete)" ] && [ -n "$(files /run/memwatch/bpf-*/links/*)" ]; }
expect 'places for the programs' "$(places)" 1
expect 'the programs' "$(wait_until 60 are_pinned && echo pinned)" pinned
# A user in no group at all reaches it.
systemd-run --quiet --wait --pipe -p User=nobody $memwatch status --json >status.json
expect 'a user asks how it is' $? 0
expect 'what the service lacks that attach has' \
    "$(jq -r '[.features_lost[]?.feature | split(" (")[0]] | join(", ")' status.json)" "$(without)"

expect 'what systemd finds wrong with its units' \
    "$(systemd-analyze verify --man=no /usr/lib/systemd/system/memwatch{.service,.slice,-export.service} 2>&1)" ''
systemd-analyze security --no-pager $unit
systemd-analyze security --no-pager --threshold=40 $unit >security.txt
expect 'an exposure of 4.0 at most' $? 0

# Incidents are told of by a process of its own, which has the network and none of root's rights.
exporting=memwatch-export.service
expect 'the service that tells of incidents' "$(systemctl is-active $exporting)" active
expect 'what it may do' "$(grep CapEff "/proc/$(of_unit MainPID $exporting)/status" | cut -f2)" 0000000000000000
systemd-analyze security --no-pager --threshold=20 $exporting >security.txt
expect 'an exposure of 2.0 at most' $? 0
# Python stands in for a receiver: what is shown is that the sandbox lets an incident through.
cat >/run/receiver.py <<'PYTHON'
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        open('/run/received', 'ab').write(self.rfile.read(int(self.headers['content-length'])) + b'\n')
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', 8321), Receiver).serve_forever()
PYTHON
python3 /run/receiver.py 2>/dev/null &
receiver=$!
mkdir -p /etc/memwatch/memwatch.toml.d
printf '[export.hook]\ntype = "webhook"\nurl = "http://127.0.0.1:8321/"\n' >/etc/memwatch/memwatch.toml.d/20.toml
systemctl reload $unit $exporting
queued() { [ -d /var/lib/memwatch/queue/hook ]; }
expect 'a queue' "$(wait_until 10 queued && echo there)" there
$memwatch attach --timeout 1s -- sleep 60
expect 'a run that is over its time' $? 124
received() { grep -qs '"type":"memwatch.incident.timeout"' /run/received; }
expect 'the incident at the receiver' "$(wait_until 20 received && echo there)" there
listed() { $memwatch status --json | jq -r '.exporters[].state' | grep -q 'up to date'; }
expect 'the exporter in the status' "$(wait_until 20 listed && echo listed)" listed
kill $receiver
rm -r /etc/memwatch/memwatch.toml.d
systemctl reload $unit $exporting

for page in memwatch memwatch-attach memwatch-config-check memwatch-doctor; do
    expect "manual of $page" "$(files /usr/share/man/man1/$page.1)" /usr/share/man/man1/$page.1
done
for completions in bash-completion/completions/memwatch zsh/vendor-completions/_memwatch \
    fish/vendor_completions.d/memwatch.fish; do
    expect "completions" "$(files /usr/share/$completions)" /usr/share/$completions
done
expect 'the licences' "$(files /usr/share/doc/memwatch/LICENSE-* | wc -l)" 3

# A bad configuration is told and not taken.
pid=$(of_unit MainPID)
mkdir /etc/memwatch/memwatch.toml.d
echo 'nonsense' >/etc/memwatch/memwatch.toml.d/10.toml
$memwatch config check 2>wrong.txt
expect 'the check of a bad configuration' $? 125
expect 'what is wrong' "$(cut -d: -f2-4 wrong.txt | head -1)" ' /etc/memwatch/memwatch.toml.d/10.toml:1:9'
systemctl reload $unit
expect 'a reload with a bad configuration' $? 0
told() { journalctl --unit=$unit | grep -q '/etc/memwatch/memwatch.toml.d/10.toml:1:9'; }
expect 'a line in the journal' "$(wait_until 10 told && echo there)" there
expect 'the service' "$(systemctl is-active $unit)" active
expect 'the same process' "$(of_unit MainPID)" "$pid"

# Killed, it comes again, and finds what it left.
kill -KILL "$pid"
again() { [ "$(systemctl is-active $unit)" = active ] && [ "$(of_unit MainPID)" != "$pid" ]; }
rm -r /etc/memwatch/memwatch.toml.d
expect 'the service after its death' "$(wait_until 60 again && echo active)" active
expect 'places for the programs' "$(places)" 1

# Hung, it is ended by systemd and comes again.
pid=$(of_unit MainPID)
kill -STOP "$pid"
expect 'the service after it hung' "$(wait_until 90 again && echo active)" active

pid=$(of_unit MainPID)
dpkg --purge memwatch
expect 'the removal of the package' $? 0
expect 'its process' "$(files "/proc/$pid")" ''
expect 'its unit' "$(systemctl list-unit-files --no-legend 'memwatch*')" ''
expect 'its units that run' "$(systemctl list-units --all --no-legend 'memwatch*')" ''
expect 'links to its units' "$(find /etc/systemd /run/systemd /var/lib/systemd -name '*memwatch*')" ''
expect 'its files' \
    "$(files /usr/bin/memwatch /etc/memwatch /var/lib/memwatch /var/cache/memwatch /usr/share/doc/memwatch)" ''
expect 'its mounts' "$(grep memwatch /proc/mounts)" ''
expect 'its cgroup' "$(files $slice)" ''
