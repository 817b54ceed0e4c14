#!/usr/bin/env bash
# A real Slurm of one node on this Debian machine, as root and without systemd: slurm.sh install|start|stop
# It listens on loopback only. SLURM_TEST_CPUS (default 16) may be more than there are. What it finds running is not
# its own and stays untouched: then "start" fails.
set -euo pipefail
config=/etc/slurm/slurm.conf
run=/run/slurm
log=/var/log/slurm
host=$(hostname -s)
cpus=${SLURM_TEST_CPUS:-16}

fail() {
    echo "slurm.sh: $*" >&2
    exit 1
}

alive() { # NAME: print the pid of our daemon, from its pid file
    local pid
    pid=$(cat "$run/$1.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] && echo "$pid"
}

end() { # NAME: end our daemon and wait for it
    local pid
    pid=$(alive "$1") || return 0
    kill "$pid"
    for _ in $(seq 100); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
        sleep 0.1
    done
    fail "$1 ($pid) does not end"
}

await() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "'$*' did not come true; see $log"
        sleep 0.1
    done
}

install_packages() {
    command -v slurmctld >/dev/null && command -v munged >/dev/null && return 0
    apt-get -qq update
    # --no-remove: slurm-wlm-torque would push out Grid Engine's client, and the other way round
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends --no-remove slurm-wlm munge
}

start_munge() {
    munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return 0
    [ -s /etc/munge/munge.key ] || /usr/sbin/mungekey --create
    install -d -o munge -g munge -m 0755 /run/munge
    install -d -o munge -g munge -m 0700 /var/log/munge /etc/munge
    install -d -o munge -g munge -m 0711 /var/lib/munge
    chown munge:munge /etc/munge/munge.key
    runuser -u munge -- /usr/sbin/munged --force </dev/null
    cp /run/munge/munged.pid "$run/munged.pid"
    await 10 bash -c 'munge -n | unmunge'
}

write_config() {
    install -d /etc/slurm
    if [ -e $config ] && ! grep -q 'written by slurm.sh' $config; then
        fail "$config is not of a test: this machine has a Slurm of its own"
    fi
    printf '%s\n' '# written by slurm.sh' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup CgroupAutomount=no \
        > /etc/slurm/cgroup.conf # named, since without a cgroup mount slurmd's own detection fails
    cat > $config <<CONF
# written by slurm.sh
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
CommunicationParameters=EnableIPv6,NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.pid
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldLogFile=$log/slurmctld.log
SlurmdLogFile=$log/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
KillWait=5
MinJobAge=300
MaxJobCount=20000
MaxArraySize=101
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=64000 State=UNKNOWN
PartitionName=batch Nodes=$host Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=100 State=UP
PartitionName=short Nodes=$host MaxTime=60 State=UP
CONF
}

start() {
    [ "$(id -u)" = 0 ] || fail "starting Slurm needs root"
    install -d -o slurm -g slurm -m 0755 $log /var/lib/slurm/slurmctld $run
    install -d -m 0755 /var/lib/slurm/slurmd
    getent --no-addrconfig ahostsv4 "$host" >/dev/null || echo "127.0.0.1 $host" >> /etc/hosts
    start_munge
    write_config
    alive slurmctld >/dev/null || /usr/sbin/slurmctld </dev/null
    await 20 bash -c 'timeout 5 scontrol ping | grep -q "is UP"'
    alive slurmd >/dev/null || /usr/sbin/slurmd -N "$host" </dev/null
    scontrol update nodename="$host" state=resume 2>/dev/null || true
    await 60 bash -c "sinfo -h -n $host -o %T | grep -qE '^(idle|mixed|allocated)$'"
}

case ${1:-} in
    install) install_packages ;;
    start) start ;;
    stop-controller) end slurmctld ;;
    stop) end slurmd; end slurmctld; end munged ;;
    *) fail "usage: slurm.sh install|start|stop-controller|stop" ;;
esac
