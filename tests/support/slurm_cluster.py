"""A SLURM of our own on this machine, as tests want one: a controller and two nodes, Debian's programs, no munge."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/slurm
CredType=auth/slurm
AuthInfo=cred_expire=5
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=20
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=100 State=UP
"""


def find_slurm() -> bool:
    """Whether the programs are here."""
    return all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch"))


class SlurmCluster:
    """Two nodes of one core; ``environment`` lets sbatch and its like find them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        (folder / "state").mkdir(parents=True)
        taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [one.getsockname()[1] for one in taken]
        for one in taken:
            one.close()
        user = pwd.getpwuid(os.getuid()).pw_name
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(_CONF.format(folder=folder, host=host, user=user, ports=ports))
        key = folder / "slurm.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.environment = {"SLURM_CONF": str(self.conf)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all, and wait until both nodes are idle."""
        errors = self.folder / "errors.txt"
        for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
            with errors.open("ab") as stream:
                self._processes.append(
                    subprocess.Popen(
                        words,
                        env={**os.environ, **self.environment},
                        stdout=subprocess.DEVNULL,
                        stderr=stream,
                        start_new_session=True,
                    )
                )
        end = time.monotonic() + 60
        while self.call("sinfo", "--noheader", "--format=%T %D", code=None).strip() != "idle 2":
            ended = [process.args for process in self._processes if process.poll() is not None]
            assert not ended, f"{ended} ended: {errors.read_text()[-2000:]}"
            assert time.monotonic() < end, (self.folder / "controller.log").read_text()[-2000:]
            time.sleep(0.2)

    def call(self, *words: str, code: int | None = 0) -> str:
        """Run one of SLURM's programs; returns what it printed."""
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        """End jobs and programs."""
        self.call("scancel", "--me", code=None)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
