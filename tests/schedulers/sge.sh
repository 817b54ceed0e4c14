#!/usr/bin/env bash
# A real Grid Engine of one node on this Debian machine, as root and without systemd: sge.sh install|start|stop
# SGE_TEST_SLOTS (default 16) may be more than there are CPUs. Ports 6444 and 6445.
set -euo pipefail
export LC_ALL=C SGE_ROOT=/var/lib/gridengine SGE_CELL=default SGE_QMASTER_PORT=6444 SGE_EXECD_PORT=6445
spool=/var/spool/gridengine
lib=/usr/lib/gridengine
common=$SGE_ROOT/$SGE_CELL/common
run=/run/gridengine
slots=${SGE_TEST_SLOTS:-16}
host=$(uname -n | tr '[:upper:]' '[:lower:]')

fail() {
    echo "sge.sh: $*" >&2
    tail -n 5 $spool/qmaster/messages $spool/execd/*/messages 2>/dev/null >&2 || true
    exit 1
}

alive() { # NAME: print the pid of our daemon, from its pid file
    local pid
    pid=$(cat "$run/$1.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "sge_$1" ] && echo "$pid"
}

end() { # NAME: end our daemon and wait for it
    local pid
    pid=$(alive "$1") || return 0
    kill "$pid"
    for _ in $(seq 300); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "sge_$1" ] || return 0
        sleep 0.1
    done
    fail "sge_$1 ($pid) does not end"
}

await() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "'$*' did not come true"
        sleep 0.1
    done
}

install_packages() {
    [ -x $lib/sge_qmaster ] && [ -x $lib/sge_execd ] && command -v qsub >/dev/null && return 0
    local package policy=/usr/sbin/policy-rc.d ours=
    apt-get -qq update
    for package in gridengine-{common,client,master,exec}; do
        echo "$package shared/gridengineconfig boolean true"
        echo "$package shared/gridenginecell string default"
        echo "$package shared/gridenginemaster string $host"
    done | debconf-set-selections
    if [ ! -e $policy ]; then # the daemons start when their configuration is there
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
        ours=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends --no-remove \
        gridengine-common gridengine-client gridengine-master gridengine-exec
    [ -z "$ours" ] || rm $policy
}

init_cell() { # what the packages do when they are configured with a master
    [ -e $spool/spooldb/sge ] && return 0
    install -d -o sgeadmin -g sgeadmin $common $spool $spool/qmaster $spool/qmaster/job_scripts $spool/spooldb $spool/execd
    [ -e $common/bootstrap ] || cp /usr/share/gridengine/default-bootstrap $common/bootstrap
    chown -R sgeadmin:sgeadmin $SGE_ROOT/$SGE_CELL $spool
    su -s /bin/sh -c "sh /usr/share/gridengine/scripts/init_cluster $SGE_ROOT $SGE_CELL $spool/spooldb sgeadmin" sgeadmin
}

launch() { # NAME VARIABLE: execd hands its environment to jobs, so it gets a bare one
    alive "$1" >/dev/null && return 0
    env -i PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C SGE_ROOT=$SGE_ROOT SGE_CELL=$SGE_CELL \
        SGE_QMASTER_PORT=$SGE_QMASTER_PORT SGE_EXECD_PORT=$SGE_EXECD_PORT "$2=$run/$1.pid" "$lib/sge_$1" </dev/null \
        >/dev/null
    await 20 alive "$1"
}

change() { # SHOW MODIFY SED...: change a configuration
    local old new
    old=$(mktemp)
    new=$(mktemp)
    SGE_SINGLE_LINE=1 qconf "$1" > "$old"
    sed "${@:3}" "$old" > "$new"
    cmp -s "$old" "$new" || qconf "$2" "$new" >/dev/null
    rm "$old" "$new"
}

configure() {
    local admin="su -s /bin/sh sgeadmin -c"
    $admin "qconf -sm" | grep -qx root || $admin "qconf -am root" >/dev/null
    qconf -sh | grep -qx "$host" || qconf -ah "$host" >/dev/null
    qconf -ss 2>/dev/null | grep -qx "$host" || qconf -as "$host" >/dev/null
    local folder
    folder=$(mktemp -d)
    # No login shells: what is in root's profile is no business of these tests, and may take long. The shepherd itself
    # instead of Debian's wrapper, which asks the C preprocessor twice for each job what machine this is.
    SGE_SINGLE_LINE=1 qconf -sconf global | sed -e 's/^min_uid .*/min_uid 0/' -e 's/^min_gid .*/min_gid 0/' \
        -e 's/^login_shells .*/login_shells none/' -e "s#^shepherd_cmd .*#shepherd_cmd $lib/sge_shepherd#" \
        -e 's/^load_report_time .*/load_report_time 00:00:05/' -e 's#^mailer .*#mailer /bin/true#' \
        -e 's/^reporting_params .*/reporting_params accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00/' \
        > "$folder/global"
    qconf -Mconf "$folder/global" >/dev/null
    change -ssconf -Msconf -e 's/^schedule_interval .*/schedule_interval 0:0:1/' \
        -e 's/^flush_submit_sec .*/flush_submit_sec 1/' -e 's/^flush_finish_sec .*/flush_finish_sec 1/' \
        -e 's/^job_load_adjustments .*/job_load_adjustments NONE/'
    if ! qconf -sel 2>/dev/null | grep -qx "$host"; then
        printf '%s\n' "hostname $host" 'load_scaling NONE' 'complex_values NONE' 'user_lists NONE' 'xuser_lists NONE' \
            'projects NONE' 'xprojects NONE' 'usage_scaling NONE' 'report_variables NONE' > "$folder/host"
        qconf -Ae "$folder/host" >/dev/null
    fi
    qconf -shgrpl 2>/dev/null | grep -qx @allhosts || {
        printf 'group_name @allhosts\nhostlist %s\n' "$host" > "$folder/group"
        qconf -Ahgrp "$folder/group" >/dev/null
    }
    qconf -spl 2>/dev/null | grep -qx smp || {
        printf '%s\n' 'pe_name smp' 'slots 999' 'user_lists NONE' 'xuser_lists NONE' 'start_proc_args NONE' \
            'stop_proc_args NONE' "allocation_rule \$pe_slots" 'control_slaves FALSE' 'job_is_first_task TRUE' \
            'urgency_slots min' 'accounting_summary TRUE' 'qsort_args NONE' > "$folder/pe"
        qconf -Ap "$folder/pe" >/dev/null
    }
    qconf -sql 2>/dev/null | grep -qx all.q || {
        qconf -sq | sed -e 's/^qname .*/qname all.q/' -e 's/^hostlist .*/hostlist @allhosts/' -e "s/^slots .*/slots $slots/" \
            -e 's/^load_thresholds .*/load_thresholds NONE/' -e 's/^pe_list .*/pe_list smp/' -e 's/^shell .*/shell \/bin\/sh/' > "$folder/queue"
        qconf -Aq "$folder/queue" >/dev/null
    }
    qconf -mattr queue slots "$slots" all.q >/dev/null
    qconf -mattr queue notify 00:00:05 all.q >/dev/null # how long a job may live on after its warning
    rm -r "$folder"
}

usable() { # the queue is there and has reported its load
    qstat -f -q "all.q@$host" | awk -v q="all.q@$host" 'index(q, $1) == 1 && $4 + 0 == $4 && $6 == "" {found = 1} END {exit !found}'
}

start() {
    [ "$(id -u)" = 0 ] || fail "starting Grid Engine needs root"
    getent ahostsv4 "$host" >/dev/null || echo "127.0.0.1 $host" >> /etc/hosts
    install -d -o sgeadmin -g sgeadmin $run
    init_cell
    echo "$host" > $common/act_qmaster
    echo "$host localhost" > $common/host_aliases # 127.0.0.1 resolves back to "localhost"
    chown sgeadmin:sgeadmin $common/act_qmaster $common/host_aliases
    launch qmaster SGE_QMASTER_PIDFILE
    await 30 qconf -sh
    configure
    launch execd SGE_EXECD_PIDFILE
    await 60 usable
}

case ${1:-} in
    install) install_packages ;;
    start) start >/dev/null ;;
    stop-controller) end qmaster ;;
    stop) end execd; end qmaster ;;
    *) fail "usage: sge.sh install|start|stop-controller|stop" ;;
esac
