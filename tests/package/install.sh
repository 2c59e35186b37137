#!/usr/bin/env bash
# Installs the Debian package in a Debian with a real systemd, uses it, upgrades it while jobs run, and removes it:
#
#   make test-package                          builds the packages (development build) and runs this
#   tests/package/install.sh OLD.deb NEW.deb   with packages that are there
#
# The commands of docs/install.md are run as they stand there: a block below `<!-- run: NAME -->` is `guide NAME`.
#
# It needs root, debootstrap, systemd-nspawn and, the first time, a mirror of Debian; the base system is kept in
# target/machine/base. No network is there inside: `sluice simulate` plays the provider.
# shellcheck disable=SC2016 # dpkg-query has variables of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

refuse() {
    echo "$*" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || refuse "systemd runs on Linux only: the package is not tested here"
[ "$(id -u)" = 0 ] || refuse "a machine with systemd can be booted by root only: sudo make test-package"
for program in debootstrap systemd-nspawn nsenter curl; do
    command -v "$program" > /dev/null || refuse "missing: $program. Install with:
  apt-get install --no-install-recommends debootstrap systemd-container util-linux curl"
done
[ $# = 2 ] || refuse "usage: tests/package/install.sh OLD.deb NEW.deb (make test-package builds them)"
old=$(realpath "$1")
new=$(realpath "$2")

mkdir -p target/machine
exec 9> target/machine/lock
flock --nonblock 9 || refuse "another test of the package runs here"

suite=${DEBIAN_SUITE:-bookworm}
base=$PWD/target/machine/base
root=$PWD/target/machine/root
guide=$PWD/docs/install.md
# The key of the test: a secret that must appear nowhere.
key=sk-test-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
checks=0

step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    inside journalctl -u 'sluice*' -o cat --no-pager 2> /dev/null | tail -n 40 >&2 || true
    exit 1
}
ok() {
    checks=$((checks + 1))
    printf 'ok %2d  %s\n' "$checks" "$*"
}
# same WHAT EXPECTED FOUND
same() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
    ok "$1: $3"
}
# until_is WHAT EXPECTED COMMAND…: within a minute and a half.
until_is() {
    local what=$1 expected=$2 found='' tries
    shift 2
    for ((tries = 0; tries < 450; tries++)); do
        found=$("$@" 2> /dev/null || true)
        [ "$found" = "$expected" ] && { ok "$what: $found"; return 0; }
        sleep 0.2
    done
    fail "$what: expected '$expected', found '$found'"
}

inside() { nsenter -t "$leader" -m -u -i -n -p -C -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root \
    DEBIAN_FRONTEND=noninteractive "$@"; }
# guide NAME: runs the block of that name as it stands in docs/install.md.
guide() {
    local block
    block=$(awk -v mark="<!-- run: $1 -->" '
        $0 == mark { found = 1; next }
        found && /^```/ { if (open) exit; open = 1; next }
        found && open { print }' "$guide")
    [ -n "$block" ] || fail "docs/install.md has no block '$1'"
    printf '%s\n' "$block" | sed 's/^/  $ /'
    inside bash -euo pipefail -c "cd /srv; $block"
}
show() { inside systemctl show -P "$2" "$1"; }
query() { inside sudo -u sluice psql -XAtq sluice -c "$1"; }
second() { inside sudo -u sluice env STATE_DIRECTORY=/var/lib/sluice/instances/second \
    sluice --config /etc/sluice/second.toml "$@"; }
second_answers() { second results hello | grep -cF Hello.; }
servers() { inside pgrep -c -u sluice -f 'bin/postgres -D'; }
logged() { inside journalctl -u sluice -o cat | grep -cF "$1"; }
provider() { nsenter -t "$leader" -n -- curl -sS "$@"; }
figure() { provider http://127.0.0.1:8089/_sim/verdict | python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

machine=''
leader=''
end() {
    local status=$?
    if [ -n "$machine" ] && kill -0 "$machine" 2> /dev/null; then
        inside systemctl poweroff > /dev/null 2>&1 || true
        for _ in $(seq 100); do kill -0 "$machine" 2> /dev/null || break; sleep 0.2; done
        kill "$machine" 2> /dev/null || true
        wait "$machine" 2> /dev/null || true
    fi
    rm -rf "$root"
    [ "$status" = 0 ] || echo "the test of the package has failed" >&2
}
trap end EXIT

step "a Debian ($suite)"
if [ ! -e "$base/.complete" ]; then
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,libpam-systemd,procps,ca-certificates,postgresql,sudo "$suite" "$base" \
        > "$base.log" 2>&1 || refuse "debootstrap failed: $(tail -n 3 "$base.log")"
    touch "$base/.complete"
fi
rm -rf "$root"
cp -a --reflink=auto "$base" "$root"
echo debian > "$root/etc/hostname"
printf '127.0.0.1 localhost debian\n' > "$root/etc/hosts"
# What a person at a terminal answers.
echo 'APT::Get::Assume-Yes "true";' > "$root/etc/apt/apt.conf.d/90test"
systemd-nspawn -D "$root" -M "sluice-test-$$" --boot --private-network --register=no --keep-unit --link-journal=no \
    --console=read-only > "$root.log" 2>&1 < /dev/null 9>&- &
machine=$!
for _ in $(seq 100); do
    leader=$(pgrep -P "$machine" systemd || true)
    [ -n "$leader" ] && break
    sleep 0.1
done
[ -n "$leader" ] || refuse "the machine does not boot here: $(tail -n 5 "$root.log")"
for _ in $(seq 300); do
    state=$(inside systemctl is-system-running 2> /dev/null || true)
    case "$state" in running | degraded) break ;; esac
    sleep 0.2
done
case "$state" in running | degraded) ;; *) refuse "the machine does not boot here: it is '$state'" ;; esac
ok "$(inside systemctl --version | head -n 1), $state"
# What purging has to leave as it was.
listing() { inside find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/lib/postgresql \
    -o -path /var/log/postgresql -o -path /var/log/journal -o -path /var/lib/dpkg -o -path /var/lib/apt \
    -o -path /var/cache -o -path /var/log/apt -o -path /root -o -path /srv \) -prune -o -print | sort; }
listing > "$root.before"

step "install"
cp "$old" "$root/srv/sluice_old.deb"
guide install
same "enabled" disabled "$(inside systemctl is-enabled sluice || true)"
same "active" inactive "$(inside systemctl is-active sluice || true)"
for line in "750 root:sluice /etc/sluice" "640 root:sluice /etc/sluice/sluice.toml" "700 root:root /etc/sluice/keys" \
    "700 sluice:sluice /var/lib/sluice" "750 sluice:sluice /var/log/sluice" "755 root:root /usr/bin/sluice" \
    "644 root:root /usr/lib/systemd/system/sluice.service" "644 root:root /usr/share/man/man1/sluice-run.1.gz"; do
    same "mode and owner" "$line" "$(inside stat -c '%a %U:%G %n' "${line##* }")"
done
same "complaints of systemd-analyze verify" "" \
    "$(inside systemd-analyze verify --man=no sluice.service sluice@x.service 2>&1 | grep -i sluice || true)"
same "edited files" "" "$(inside dpkg --verify sluice)"
inside systemctl start sluice > /dev/null 2>&1 && fail "a worker without a provider starts"
until_is "without a provider it ends with" 3 show sluice ExecMainStatus
same "and is not started again" 0 "$(show sluice NRestarts)"

step "configure"
cat > "$root/root/provider.toml" << END
[providers.openai]
dialect = "openai"
keys = ["$key"]
latency = { fixed = "500ms" }
output = { text = "Hello." }
[providers.openai.models]
"gpt-4o-mini" = { price = { input = "0.15", output = "0.60" } }
END
inside systemd-run --quiet --unit=provider sluice simulate --listen 127.0.0.1:8089 --scenario /root/provider.toml
guide database
guide configure
# The provider is the simulator: the one line of this test in the file.
sed -i 's|^\[providers.openai\]$|&\nbase_url = "http://127.0.0.1:8089/openai/v1"|' "$root/etc/sluice/sluice.toml"
printf '%s' "$key" | guide key
guide credential
guide migrate

step "start"
guide start
until_is "state" active show sluice ActiveState
same "enabled" enabled "$(inside systemctl is-enabled sluice)"
guide first-job
until_is "answer" Hello. query "select answer from sluice.results order by job_id desc limit 1"
same "key in the unit, the environment, the journal" "" "$(inside bash -c "systemctl show sluice; \
    tr '\\0' '\\n' < /proc/\$(systemctl show -P MainPID sluice)/environ; journalctl -o cat" | grep -F "$key" || true)"
same "ready" ready "$(provider http://127.0.0.1:9470/readyz)"
# Containerfile's own words, which no test here runs in an image.
health=$(sed -n '/^HEALTHCHECK/,/^ENTRYPOINT/p' Containerfile \
    | sed -e 1d -e '/^ENTRYPOINT/d' -e 's/\\$//' | tr '\n' ' ')
inside bash -c "$health" || fail "the health check of the image fails"
ok "the health check of the image"
printf '        %s\n' "$(inside systemd-analyze security --no-pager sluice.service | grep Overall)"

step "reload"
pid=$(show sluice MainPID)
sed -i 's|^\[database\]$|[worker]\nmax_in_flight = 20\n\n&|' "$root/etc/sluice/sluice.toml"
guide reload
until_is "lines of the log that say so" 1 logged 'the configuration was read again and is in force'
same "the same process" "$pid" "$(show sluice MainPID)"

step "the watchdog"
# 60 s in the unit: the test is impatient.
mkdir -p "$root/etc/systemd/system/sluice.service.d"
printf '[Service]\nWatchdogSec=6s\nTimeoutAbortSec=2s\n' > "$root/etc/systemd/system/sluice.service.d/test.conf"
inside systemctl daemon-reload
inside systemctl restart sluice
pid=$(show sluice MainPID)
inside kill -STOP "$pid"
until_is "restarts" 1 show sluice NRestarts
until_is "state" active show sluice ActiveState
[ "$(show sluice MainPID)" != "$pid" ] || fail "it is the same process"
inside journalctl -u sluice -o cat | grep -iF 'watchdog timeout' | sed 's/^/        /'

step "kill -9"
pid=$(show sluice MainPID)
inside kill -9 "$pid"
until_is "restarts" 2 show sluice NRestarts
until_is "state" active show sluice ActiveState
query "insert into sluice.job (request) values ('{\"prompt\": \"After kill -9.\"}')"
until_is "jobs with an answer" 2 query "select count(*) from sluice.results where answer = 'Hello.'"

step "a second worker, with a private Postgres"
guide second
until_is "state" active show sluice@second ActiveState
guide second-job
same "ready" ready "$(provider http://127.0.0.1:9471/readyz)"
until_is "answers" 1 second_answers
inside test -d /var/lib/sluice/instances/second/postgres || fail "the private Postgres is somewhere else"
# A command outside of the unit cannot look into it, and must not take its server for a dead one.
same "servers on the private Postgres" 1 "$(servers)"
# And the other way round: the command has started it, and the unit finds it.
inside systemctl stop sluice@second
same "servers without the unit" 0 "$(servers || true)"
second psql -- -c 'select pg_sleep(15)' > /dev/null &
command=$!
until_is "servers for a command" 1 servers
inside systemctl start sluice@second
same "servers for both" 1 "$(servers)"
wait "$command" || fail "the command has failed"
same "servers for the unit" 1 "$(servers)"
same "state" active "$(show sluice@second ActiveState)"

step "upgrade while jobs run"
provider -X POST http://127.0.0.1:8089/_sim/reset > /dev/null
jobs=1000
query "insert into sluice.job (request, batch)
    select jsonb_build_object('prompt', 'Number ' || n), 'upgrade' from generate_series(1, $jobs) n"
until_is "some are answered" t query "select count(*) > 40 from sluice.results where batch = 'upgrade'"
rm "$root/srv/sluice_old.deb"
cp "$new" "$root/srv/sluice_new.deb"
before=$(inside dpkg-query -W -f '${Version}' sluice)
pid=$(show sluice MainPID)
tables=$(query "select max(version) from sluice.migration")
guide upgrade
after=$(inside dpkg-query -W -f '${Version}' sluice)
[ "$before" != "$after" ] || fail "nothing was upgraded"
ok "version: $before, then $after"
open=$(query "select $jobs - count(*) from sluice.results where batch = 'upgrade'")
[ "$open" -gt 0 ] || fail "all jobs were done before the upgrade was"
ok "jobs that wait or run after the upgrade: $open"
[ "$(show sluice MainPID)" != "$pid" ] || fail "the old program still runs"
# The same command as for the first tables. It does nothing where the new version needs none.
guide migrate
ok "version of the tables: $tables, then $(query "select max(version) from sluice.migration")"
until_is "state" active show sluice ActiveState
until_is "state of the second" active show sluice@second ActiveState
same "drained and ended with" "sluice.service: Deactivated successfully." \
    "$(inside journalctl -u sluice -o cat | grep -F 'Deactivated' | tail -n 1)"
until_is "jobs with an answer" "$jobs" query "
    select count(*) from sluice.results where batch = 'upgrade' and answer = 'Hello.'"
same "calls on the ledger, all of them accepted" "$jobs|$jobs" "$(query "
    select count(*), count(*) filter (where accepted) from sluice.attempts where batch = 'upgrade'")"
same "calls that the provider saw" "$jobs" "$(figure "['calls']")"
same "requests that it answered twice" 0 "$(figure "['answered_twice']")"
same "its verdict is clean" True "$(figure "['clean']")"

step "remove"
guide remove
same "program" gone "$(inside test -e /usr/bin/sluice && echo there || echo gone)"
same "unit" not-found "$(show sluice LoadState)"
same "processes of the user" 0 "$(inside pgrep -c -u sluice || true)"
same "kept" "/etc/sluice/keys/openai /etc/sluice/second.toml /etc/sluice/sluice.toml" \
    "$(inside find /etc/sluice -type f ! -name '*.dpkg-dist' | sort | tr '\n' ' ' | sed 's/ $//')"
inside test -d /var/lib/sluice/instances/second/postgres || fail "removal has deleted a queue"
ok "the private Postgres is still there"

step "install again"
guide install
inside systemctl start sluice
query "insert into sluice.job (request, batch) values ('{\"prompt\": \"Again.\"}', 'again')"
until_is "answer" Hello. query "select answer from sluice.results where batch = 'again'"

step "purge"
guide purge
inside systemctl stop provider
same "state of the package" "" "$(inside dpkg-query -W -f '${Status}' sluice 2> /dev/null || true)"
same "processes of the user" 0 "$(inside pgrep -c -u sluice || true)"
same "units" "" "$(inside systemctl list-units --all --no-legend 'sluice*')"
listing > "$root.after"
# The user is in these; the others are systemd's own, and files of this test.
left=$(diff "$root.before" "$root.after" | grep '^[<>]' \
    | grep -v -E ' /etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$' || true)
same "files that were not there before" "" "$left"
inside getent passwd sluice > /dev/null || fail "the user is gone"
ok "only the user is left: $(inside getent passwd sluice)"

printf '\n%d checks passed\n' "$checks"
