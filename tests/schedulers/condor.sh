#!/usr/bin/env bash
# A real HTCondor pool of one node, as root and without systemd: condor.sh install|start|stop
# Debian 12 has no HTCondor: this unpacks Debian 13's with the libraries that it needs into a folder of its own and
# points the programs there with patchelf; jobs see the machine's own files, users and Python. It listens on loopback
# only. Jobs never run as root: submit as the user "dwf-test". CONDOR_TEST_CPUS (default 16) may be more than there are.
set -euo pipefail
export LC_ALL=C
umask 022
base=/var/tmp/dwf-condor
system=$base/system # unpacked packages
home=$base/home     # programs, configuration, spool and logs
config=$home/condor_config
user=dwf-test
port=9618
cpus=${CONDOR_TEST_CPUS:-16}

fail() {
    echo "condor.sh: $*" >&2
    tail -n 5 $home/local/log/{MasterLog,StartLog,SchedLog} 2>/dev/null >&2 || true
    exit 1
}

master() { # print the pid of our master
    local pid
    pid=$(cat $base/master.pid 2>/dev/null) && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = $home/sbin/condor_master ] \
        && echo "$pid"
}

install_packages() {
    [ -x $home/sbin/condor_master ] && [ -e $base/complete ] && return 0
    if ! command -v patchelf >/dev/null; then
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends patchelf
    fi
    local state=$base/apt mirror packages loader libraries file
    mirror=$({ sed -n 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources 2>/dev/null
        sed -n 's/^deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]*\).*/\2/p' /etc/apt/sources.list 2>/dev/null || true
    } | tr ' ' '\n' | grep -E '/debian/?$' | head -n 1) || fail "no Debian mirror in /etc/apt"
    rm -rf $state $system ${home:?}/{bin,sbin,libexec}
    mkdir -p $state/lists/partial $state/debs $system $home/{bin,sbin,libexec}
    : > $state/status
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > $state/sources.list
    local options=(-q -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::State::lists=$state/lists"
        -o "Dir::Cache=$state" -o APT::Install-Recommends=false -o APT::Sandbox::User=root
        -o APT::Update::Post-Invoke-Success::= -o Acquire::Languages=none -o Acquire::Retries=3)
    apt-get "${options[@]}" update >/dev/null
    packages=$(apt-get "${options[@]}" install -y -s condor | awk '$1 == "Inst" {print $2}' | grep -E '^(condor$|lib)' \
        | grep -vE '^lib(python|perl|js-|date-|boost-python|semanage|sepol|debconf|pam-|gdbm)' | sort -u)
    # shellcheck disable=SC2086 # a list of words
    (cd $state/debs && apt-get "${options[@]}" download $packages) >/dev/null
    for file in "$state"/debs/*.deb; do dpkg -x "$file" $system; done
    cp -a $system/usr/bin/condor_* $home/bin/
    cp -a $system/usr/sbin/condor_* $home/sbin/
    cp -a $system/usr/libexec/condor/. $home/libexec/
    local multiarch
    multiarch=$(basename "$(dirname "$(find $system -name libc.so.6 | head -n 1)")")
    loader=$(find $system -name 'ld-linux*.so.*' | grep "$multiarch" | head -n 1)
    libraries=$system/usr/lib:$system/usr/lib/$multiarch:$system/usr/lib/condor:$system/lib/$multiarch
    for file in "$home"/{bin,sbin,libexec}/*; do
        if [ -f "$file" ] && [ ! -L "$file" ] && [[ $file != *.so* ]]; then
            patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$file" 2>/dev/null || true
        fi
    done
    $home/bin/condor_version >/dev/null
    rm -rf $state
    touch $base/complete
}

write_config() {
    getent passwd condor >/dev/null || useradd -r -M -d $home/local -s /usr/sbin/nologin condor
    getent passwd $user >/dev/null || useradd -m -s /bin/bash $user
    mkdir -p $home/local/{log,spool,run,lock,execute,creds}
    chown condor: $home/local $home/local/*
    chmod 700 $home/local/creds
    cat > $config <<CONF
RELEASE_DIR = $home
LOCAL_DIR = $home/local
BIN = $home/bin
SBIN = $home/sbin
LIBEXEC = $home/libexec
LIB = $system/usr/lib/condor
ETC = $home
RUN = \$(LOCAL_DIR)/run
LOG = \$(LOCAL_DIR)/log
LOCK = \$(LOCAL_DIR)/lock
SPOOL = \$(LOCAL_DIR)/spool
EXECUTE = \$(LOCAL_DIR)/execute
CRED_STORE_DIR = \$(LOCAL_DIR)/creds
LOCAL_CONFIG_FILE =
LOCAL_CONFIG_DIR =
use security:recommended_v9_0
use ROLE: CentralManager
use ROLE: Submit
use ROLE: Execute
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
NETWORK_HOSTNAME = localhost
ENABLE_IPV6 = False
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:$port
SHARED_PORT_PORT = $port
UID_DOMAIN = dwf.test
FILESYSTEM_DOMAIN = dwf.test
TRUST_UID_DOMAIN = True
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_INTEGRITY = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
SEC_CLIENT_AUTHENTICATION_METHODS = FS
ALLOW_DAEMON = condor@\$(UID_DOMAIN)
ALLOW_NEGOTIATOR = condor@\$(UID_DOMAIN)
ALLOW_ADMINISTRATOR = root@\$(UID_DOMAIN) condor@\$(UID_DOMAIN)
ALLOW_WRITE = *
ALLOW_READ = *
# leave the machine alone
ENABLE_KERNEL_TUNING = False
BASE_CGROUP =
PER_JOB_NAMESPACES = False
MOUNT_UNDER_SCRATCH =
DOCKER =
SINGULARITY =
ENABLE_URL_TRANSFERS = False
RUNBENCHMARKS = 0
MAIL =
NUM_CPUS = $cpus
MEMORY = 64000
use FEATURE:PartitionableSlot
START = TRUE
SUSPEND = FALSE
PREEMPT = FALSE
KILL = FALSE
MachineMaxVacateTime = 5
KILLING_TIMEOUT = 5
# a brisk pool
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
PERIODIC_EXPR_INTERVAL = 5
MAX_PERIODIC_EXPR_INTERVAL = 5
STARTER_INITIAL_UPDATE_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 3
SHADOW_QUEUE_UPDATE_INTERVAL = 3
PROCD_MAX_SNAPSHOT_INTERVAL = 2
CONF
    mkdir -p $base/bin
    local name
    for name in submit q rm history status hold release version; do # as a site's commands, with their configuration
        printf '#!/bin/sh\nCONDOR_CONFIG=%s exec %s/bin/condor_%s "$@"\n' $config $home $name > $base/bin/condor_$name
        chmod 755 $base/bin/condor_$name
    done
}

answers() { # a slot, and a schedd
    [ -n "$($base/bin/condor_status -af Name 2>/dev/null)" ] && $base/bin/condor_q -allusers -totals >/dev/null 2>&1
}

start() {
    [ "$(id -u)" = 0 ] || fail "starting HTCondor needs root"
    [ -e $base/complete ] || fail "it is not installed: condor.sh install"
    write_config
    if ! master >/dev/null; then
        ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "port $port is in use"
        CONDOR_CONFIG=$config setsid $home/sbin/condor_master -f </dev/null >$home/master.out 2>&1 &
        echo $! > $base/master.pid
    elif ! answers; then
        CONDOR_CONFIG=$config $home/sbin/condor_on -schedd >/dev/null
    fi
    local deadline=$((SECONDS + 60))
    until answers; do
        [ $SECONDS -lt $deadline ] || fail "no slot or no schedd after 60 s"
        sleep 0.2
    done
}

stop() {
    local pid
    pid=$(master) || return 0
    kill -QUIT "$pid" # fast: the queue is kept
    for _ in $(seq 300); do
        [ -e "/proc/$pid" ] || return 0
        sleep 0.1
    done
    fail "condor_master ($pid) does not end"
}

stop_schedd() { # jobs go on, and it finds them again
    CONDOR_CONFIG=$config $home/sbin/condor_off -fast -schedd >/dev/null
    for _ in $(seq 300); do
        answers || return 0
        sleep 0.1
    done
    fail "the schedd does not end"
}

case ${1:-} in
    install) mkdir -p $base && install_packages ;;
    start) start ;;
    stop-controller) stop_schedd ;;
    stop) stop ;;
    *) fail "usage: condor.sh install|start|stop-controller|stop" ;;
esac
