"""A real Slurm on this machine: munged, slurmctld and several slurmd, with all their files in one folder.

Debian's packages munge, slurmctld, slurmd and slurm-client; root. Processes are tracked by their parents
(proctrack/linuxproc) and bound to nothing (task/none), because a container has no cgroups to give.
"""

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbob.cluster.calls import wait_until

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")

START_S = 60.0

CONFIG = """
ClusterName=plumbob
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
KillWait={kill_wait_s}
SlurmdTimeout=20
JobRequeue=1
MailProg=/bin/true
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0
NodeName=node[1-{num_nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}] CPUs={cpus} RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0
"""


@dataclass(frozen=True)
class SlurmCluster:
    """One that is running.

    Attributes:
        environment: of whoever calls Slurm's commands.
    """

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]]

    def call(self, *command: str) -> str:
        """What one of Slurm's commands prints; it must succeed."""
        done = subprocess.run(
            command, env=self.environment, text=True, capture_output=True, check=False, timeout=60, cwd=self.folder
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout

    def submit(self, script: Path, *arguments: str, options: Sequence[str] = ()) -> str:
        """The job's id."""
        return self.call("sbatch", "--parsable", *options, str(script), *arguments).strip()

    def state(self, job: str) -> str:
        """Such as RUNNING or COMPLETED."""
        return self.field(job, "JobState")

    def field(self, job: str, name: str) -> str:
        """Of `scontrol show job`."""
        words = self.call("scontrol", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def lose(self, node: str) -> None:
        """A host dies: its slurmd and all that it started."""
        import psutil

        daemon = psutil.Process(self.daemons[node].pid)
        for process in (*self.steps(node), *daemon.children(recursive=True), daemon):
            for each in (*_below(process), process):
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
        self.daemons[node].wait()

    def steps(self, node: str) -> list["psutil.Process"]:  # noqa: F821
        """The slurmstepd of that node, which are nobody's children."""
        import psutil

        found = []
        for process in psutil.process_iter(["name", "environ", "cmdline"]):
            if process.info["name"] == "slurmstepd" and any(
                child.environ().get("SLURMD_NODENAME") == node for child in process.children() if child.is_running()
            ):
                found.append(process)
        return found


def _below(process: "psutil.Process") -> list["psutil.Process"]:  # noqa: F821
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def free_ports(count: int) -> list[int]:
    """Consecutive ones."""
    while True:
        first = 17_000 + secrets.randbelow(2_000)
        held = []
        try:
            for port in range(first, first + count):
                held.append(socket.create_server(("127.0.0.1", port)))
            return list(range(first, first + count))
        except OSError:
            continue
        finally:
            for each in held:
                each.close()


def missing() -> list[str]:
    """Commands that are not installed."""
    return [command for command in COMMANDS if shutil.which(command) is None]


@contextmanager
def slurm_cluster(folder: Path, num_nodes: int, cpus: int, kill_wait_s: int = 15) -> Iterator[SlurmCluster]:
    """One of so many nodes with so many CPUs each, whatever the machine has."""
    controller_port, *ports = free_ports(num_nodes + 1)
    config = CONFIG.format(
        host=socket.gethostname(),
        controller_port=controller_port,
        folder=folder,
        kill_wait_s=kill_wait_s,
        num_nodes=num_nodes,
        ports=f"{ports[0]}-{ports[-1]}",
        cpus=cpus,
    )
    (folder / "slurm.conf").write_text(config)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    nodes = [f"node{number}" for number in range(1, num_nodes + 1)]
    commands = {
        "munged": ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        "slurmctld": ["slurmctld", "-D", "-i"],
        **{node: ["slurmd", "-D", "-N", node] for node in nodes},
    }
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    cluster = SlurmCluster(folder, environment, daemons)
    try:
        for name, command in commands.items():
            with (folder / f"{name}.out").open("wb") as printed:
                daemons[name] = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)
            if name == "munged":
                assert wait_until((folder / "munge.socket").exists, START_S)
        are_idle = lambda: _states(cluster).count("idle") == num_nodes  # noqa: E731
        assert wait_until(are_idle, START_S), (folder / "slurmctld.log").read_text()[-3000:]
        yield cluster
    finally:
        for name in reversed(daemons):
            daemons[name].terminate()
        for daemon in daemons.values():
            try:
                daemon.wait(20.0)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _states(cluster: SlurmCluster) -> list[str]:
    """Of all nodes; empty while the controller does not answer."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"],
        env=cluster.environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.stdout.split()
