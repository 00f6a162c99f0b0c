"""Writes a run as a Slurm batch script, which starts a Ray cluster of its own on the hosts that Slurm gives it."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from plumbob.cluster.launchers.job_files import JOIN_WAIT_S, as_yaml, for_cluster
from plumbob.cluster.launchers.launcher import LauncherOption
from plumbob.cluster.placement import TOLERANCE, plan, total
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed, resource_needs
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import UserError

NAME = "slurm"
OPTIONS = (LauncherOption("--hosts", "equal hosts to spread the workers over (1)", "N", int),)

END_OF_CONFIG = "END OF CONFIG"
"""No line of YAML: it is neither a key with its value nor an item of a list."""

HEAD_START_S = 120
"""How long the head has to start."""

WARNING_S = 120
"""How long before the time limit the run is told to end its step and save."""

BODY = r"""
set -euo pipefail

fail() {
    echo "plumbob: $1" >&2
    exit "$2"
}

command -v ray >/dev/null && command -v plumbob >/dev/null ||
    fail "ray and plumbob are not on the PATH: activate their environment before sbatch, or above this line" 2

# The token stands in the environment, which only this user's processes see, and on no command line.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

# Other jobs may run on the same hosts.
port=$((20000 + SLURM_JOB_ID % 10000))
config=$(mktemp --suffix=.yaml)
joined=$(mktemp)  # A line for each host on which Ray has started.
driver=
steps=()
hosts=()

# One step a host, so that a host that is lost takes no other with it. In a session of its own Ray hears no signal but
# the one below; what it prints is shown where it ends by itself; its folder goes with it.
ray_of_one_host='
export TMPDIR=$1
rm -rf -- "$TMPDIR" && mkdir -p -- "$TMPDIR" || exit 1
stopped=
start=(ray start --block --temp-dir="$TMPDIR" --num-cpus="$SLURM_CPUS_PER_TASK" "${@:2}")
RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 setsid "${start[@]}" >"$TMPDIR/printed" 2>&1 &
ray=$!
trap "stopped=1; kill -TERM $ray 2>/dev/null" TERM USR1
has_started() { grep -qs "Ray runtime started" -- "$TMPDIR/printed"; }
until has_started || ! kill -0 "$ray" 2>/dev/null; do sleep 0.2; done
has_started && echo joined
status=1
while kill -0 "$ray" 2>/dev/null; do wait "$ray" && status=0 || status=$?; done
[[ -n $stopped ]] && status=0 || tail -n 20 -- "$TMPDIR/printed" >&2
rm -rf -- "$TMPDIR"
exit "$status"
'

start_ray() {
    srun --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        bash -c "$ray_of_one_host" ray "/tmp/ray-$SLURM_JOB_ID-${#steps[@]}" "${@:2}" >>"$joined" &
    steps+=($!)
    hosts+=("$1")
}

is_running() {
    kill -0 "$1" 2>/dev/null
}

wait_for() {
    local deadline=$((SECONDS + $1))
    while ((SECONDS < deadline)) && is_running "$2"; do
        sleep 0.2
    done
}

# Shorter than Slurm's KillWait, 30 s, after which it kills what is left.
cleanup() {
    trap '' TERM
    trap - EXIT
    if [[ -n $driver ]] && is_running "$driver"; then
        kill -TERM "$driver" 2>/dev/null || true
        wait_for 10 "$driver"
        kill -KILL "$driver" 2>/dev/null || true
    fi
    if ((${#steps[@]})); then
        scancel --quiet --signal=USR1 "$SLURM_JOB_ID" || true  # Of TERM Slurm says that it is an error.
        local began=$SECONDS step
        for step in "${steps[@]}"; do
            wait_for $((began + 15 - SECONDS)) "$step"
            kill -KILL "$step" 2>/dev/null || true
        done
    fi
    rm -f -- "$config" "$joined"
}
trap cleanup EXIT
trap 'exit 143' TERM

head=$SLURMD_NODENAME
head_ip=$(hostname -I | awk '{ print $1 }')
start_ray "$head" --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false
deadline=$((SECONDS + head_start_s))
until (: <"/dev/tcp/$head_ip/$port") 2>/dev/null; do
    is_running "${steps[0]}" || fail "the head of Ray did not start on $head" 1
    ((SECONDS < deadline)) || fail "the head of Ray on $head did not answer within $head_start_s s" 1
    sleep 0.2
done
for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    [[ $host == "$head" ]] || start_ray "$host" --address="$head_ip:$port"
done

# Once the run has begun it does without a host that is lost; before that it would wait for the host in vain.
look_for_lost_hosts() {
    local number
    for number in "${!steps[@]}"; do
        is_running "${steps[number]}" && continue
        echo "plumbob: Ray has ended on ${hosts[number]}" >&2
        ((number)) || fail "which is the host of its head; resume the run with: sbatch THIS_SCRIPT resume" 1
        [[ $run_folder/resolved.json -nt $config ]] || fail "it has to be there before the run begins" 1
        unset "steps[number]"
    done
}

# Workers that shall be spread over all hosts go to those that are there.
deadline=$((SECONDS + join_wait_s))
num_joined() {  # What a site's own prologs print stands there too.
    grep -cx joined -- "$joined" || true
}
until (($(num_joined) == ${#steps[@]})); do
    look_for_lost_hosts
    ((SECONDS < deadline)) || fail "Ray has started on $(num_joined) of ${#steps[@]} hosts in $join_wait_s s" 1
    sleep 0.2
done

export RAY_ADDRESS=$head_ip:$port
if [[ ${1:-} == resume || ${SLURM_RESTART_COUNT:-0} -gt 0 && -e $run_folder/resolved.json ]]; then
    plumbob resume "$run_folder" &
else
    write_config >"$config"
    plumbob run "$config" &
fi
driver=$!
# The time limit is near, or `scancel --batch --signal=TERM`: the run ends its step, saves and ends with status 75.
trap 'kill -TERM "$driver" 2>/dev/null || true' TERM

while is_running "$driver"; do
    look_for_lost_hosts
    sleep 1
done
status=0
wait "$driver" || status=$?
exit "$status"
"""


def render(config: AnyRun, options: Mapping[str, Any]) -> str:
    """The script of a run, for as many hosts as --hosts says."""
    sent = for_cluster(config, JOIN_WAIT_S)
    return script(sent, resource_needs(sent), 1 if options["hosts"] is None else options["hosts"])


def script(config: AnyRun, needs: Sequence[ResourceNeed], num_hosts: int) -> str:
    """The script. What is given to `sbatch` beside it replaces its own options.

    Args:
        config: as `cluster.launchers.job_files.for_cluster` gives it.
        num_hosts: equal hosts that the workers are spread over.

    Raises:
        UserError: there are more hosts than workers.
    """
    options = sbatch_options(config.name, host_size(needs, num_hosts), num_hosts)
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={value}" for name, value in options.items()),
        "",
        f"run_folder={shlex.quote(str(PurePosixPath(config.storage.path) / config.name))}",
        f"head_start_s={HEAD_START_S}",
        f"join_wait_s={JOIN_WAIT_S:g}",
        "write_config() {",
        f"    cat <<'{END_OF_CONFIG}'",
        as_yaml(config) + END_OF_CONFIG,
        "}",
    ]
    return "\n".join(lines) + BODY


def sbatch_options(name: str, size: ResourceAmount, num_hosts: int) -> Mapping[str, str | None]:
    """Option -> its value, None where it takes none."""
    options: dict[str, str | None] = {
        "job-name": re.sub(r"[^A-Za-z0-9._-]", "-", name),
        "nodes": str(num_hosts),
        "ntasks-per-node": "1",
        "cpus-per-task": f"{size.cpus:g}",
        # All that the host has: Plumbob's figures of memory place workers, and bound nothing.
        "mem": "0",
        # A host that is lost does not end the job: the run continues on the others.
        "no-kill": None,
        # The job starts again when the host of this script is lost, or a job of higher priority has ended it.
        "requeue": None,
        "open-mode": "append",
        "signal": f"B:TERM@{WARNING_S}",
    }
    return options | ({"gpus-per-node": f"{size.gpus:g}"} if size.gpus else {})


def host_size(needs: Sequence[ResourceNeed], num_hosts: int) -> ResourceAmount:
    """The fewest whole GPUs, and with these the fewest whole CPUs, that equal hosts must have to hold all workers."""
    num_workers = sum(need.count for need in needs)
    if not 1 <= num_hosts <= num_workers:
        raise UserError(f"--hosts {num_hosts}: expected 1 to {num_workers}, the number of the run's workers")
    whole = total(needs)
    for gpus in _whole_numbers(whole.gpus, num_hosts):
        for cpus in _whole_numbers(whole.cpus, num_hosts):
            size = ResourceAmount(cpus, gpus, whole.gib)
            if plan(needs, [Host(str(number), str(number), size) for number in range(num_hosts)]).fits:
                return size
    raise AssertionError("a host that has all that is needed holds all workers")


def _whole_numbers(needed: float, num_hosts: int) -> range:
    """From an equal share of what is needed to all of it."""
    return range(math.ceil(needed / num_hosts - TOLERANCE), math.ceil(needed - TOLERANCE) + 1)
