"""The script of a job: clone, fetch inputs, build, send results. The same for every scheduler; it needs only bash.

Values from settings are quoted for the shell, except ``submit.setup``, whose lines are commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from tunectl.jobs.job_spec import JobSpec

STATE = "state"
"""File in the job's folder: ``running``, ``requeued``, ``stopped``, ``finished CODE`` or ``failed CODE``."""
WORKING_COPY = "project"
RESULTS = "tunectl-job"
"""Copies of metrics in the job's clone, under ``dvc add``: DVC's run cache refers to them, but they are not pushed with it."""
PORT = 29500
LAUNCH = ".tunectl/launch.json"
"""File that ``compose`` writes and ``tunectl run STAGE --join`` reads; that of an earlier start may name another machine."""
_HOLE = re.compile(r"@([A-Z]+)@")

_START = """\
set -e -o pipefail -m  # -m: the build has a process group of its own, so that Ctrl-C's signal reaches it
folder={folder}
mkdir -p -- "$folder"
note() {{ printf '%s\\n' "$1" >"$folder/{state}.part" && mv -f -- "$folder/{state}.part" "$folder/{state}"; }}
ended='' stopped='' build='' own=''
# 1 to 4 are what a scheduler does not try again, so of anything but the build (git, DVC, a disk) they become 5
leave() {{
  code=$1
  [ -n "$ended$own" ] || case $code in [1-4]) code=5 ;; esac
  [ -n "$ended" ] || note "failed $code"
  exit "$code"
}}
trap 'leave $?' EXIT
note running
"""
_CLONE = """\
# the commit, once: a job that starts again goes on where it was
if [ ! -d "$folder/{copy}" ]; then
  rm -rf -- "$folder/clone"
  git clone --quiet --no-checkout -- {repository} "$folder/clone"
  git -C "$folder/clone" checkout --quiet --detach {commit}
  mv -- "$folder/clone" "$folder/{copy}"
fi
cd -- "$folder/{copy}"{subfolder}

# what the remote has is not built again
tunectl dvc pull --quiet --run-cache --allow-missing --with-deps --remote {remote} -- {inputs}
"""
_JOIN = """\
# the other machines give their processes to each fit, once compose has said where they meet
rm -f -- {launch}
export TUNECTL_FITS={fits}
srun --nodes={others} --ntasks={others} --ntasks-per-node=1{cpus} --exclude="$SLURMD_NODENAME" bash -c '
  until [ -s {launch} ]; do sleep 1; done
  for stage in $TUNECTL_FITS; do
    while :; do tunectl run "$stage" --join || sleep 5; done &
  done
  wait' &
joined=$!
"""
_BUILD = """\
# USR1 (the time is nearly up) and TERM (canceled, preempted): the step under way ends and is saved
stop() {{
  [ -z "$stopped" ] || return 0
  stopped=$1
  [ -z "$build" ] || kill -INT "$build" 2>/dev/null || true
}}
trap 'stop USR1' USR1
trap 'stop TERM' TERM INT
tunectl repro --unattended {arguments} &
build=$!
code=0
while kill -0 "$build" 2>/dev/null; do wait "$build" || true; done
wait "$build" || code=$?
trap '' USR1
trap - TERM INT
"""
_UNJOIN = """\
kill -TERM "$joined" 2>/dev/null || true
"""
_STOPPED = """\
if [ -n "$stopped" ] && [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then
  ended=1
{requeue}  note stopped
  exit 143
fi
"""
_REQUEUE = """\
  if [ "$stopped" = USR1 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    note requeued
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
"""
_PUSH = """\
# finished stages go to the remote, also of a build that failed; metrics are not in DVC's cache, so they are added to it
if compgen -G 'artifacts/metrics/*.json' >/dev/null; then
  mkdir -p {results}
  cp -- artifacts/metrics/*.json {results}/
  tunectl dvc add --quiet {results}
  tunectl dvc push --quiet --run-cache --with-deps --remote {remote} -- {built} {results}.dvc
fi
own=1
[ "$code" -eq 0 ] || [ "$code" -eq 3 ] || exit "$code"  # 3: a gate said no, which is a result
ended=1
note "finished $code"
"""


def write_script(job: JobSpec) -> str:
    """Return the text of the bash script, without the first line that names the shell."""
    return "\n".join(_iter_parts(job))


def _iter_parts(job: JobSpec) -> Iterator[str]:
    storage, several = job.storage, job.section.nodes > 1
    folder = shlex.quote(storage) if storage else f'"${{TMPDIR:-/tmp}}/{job.name}"'
    yield _START.format(folder=folder, state=STATE)
    if job.section.setup:
        yield "# submit.setup\n" + "".join(f"{line}\n" for line in job.section.setup)
    yield _CLONE.format(
        copy=WORKING_COPY,
        repository=shlex.quote(job.repository),
        commit=job.commit,
        subfolder=f"/{shlex.quote(job.folder)}" if job.folder else "",
        remote=job.remote,
        inputs=shlex.join(job.inputs),
    )
    if several:
        # srun does not take this one over from sbatch
        cpus = f" --cpus-per-task={job.section.cpus}" if job.section.cpus is not None else ""
        fits = shlex.quote(" ".join(job.fits))
        yield _JOIN.format(fits=fits, others=job.section.nodes - 1, cpus=cpus, launch=LAUNCH)
    arguments = [part for stage in job.stages for part in ("--to", stage)] + list(job.overrides)
    line = shlex.join(arguments)
    if several:
        path = f"{storage}/launch".replace("\\", "\\\\").replace("'", "\\'")
        setting = shlex.quote(f"launch.storage_path='{path}'")
        line += f' launch.nnodes={job.section.nodes} "launch.rdzv_endpoint=$(hostname):{PORT}" {setting}'
    yield _BUILD.format(arguments=line) + (_UNJOIN if several else "")
    requeue = _REQUEUE.format(restarts=job.section.max_restarts) if job.section.to == "slurm" else ""
    yield _STOPPED.format(requeue=requeue)
    yield _PUSH.format(results=RESULTS, remote=job.remote, built=shlex.join(job.inputs))


def fill_template(text: str, job: JobSpec, log: str) -> str:
    """Return the template ``text`` with its ``@NAME@`` replaced; ``@SCRIPT@`` alone on a line is the script, indented like that line.

    ``log`` is the path of the job's log.
    Raises  ValueError for an unknown name, and where there is no ``@SCRIPT@``.
    """
    values, result, has_commands = job.values(log), list[str](), False
    for line in text.splitlines():
        if line.strip() == "@SCRIPT@":
            indent, has_commands = line[: line.index("@")], True
            result += [f"{indent}{row}" if row else "" for row in write_script(job).splitlines()]
            continue
        unknown = [name for name in _HOLE.findall(line) if name not in values]
        if unknown:
            raise ValueError(
                f"@{unknown[0]}@ is unknown; allowed are @SCRIPT@, alone on a line, and @{'@, @'.join(values)}@"
            )
        result.append(_HOLE.sub(lambda hole: values[hole[1]], line))
    if not has_commands:
        raise ValueError("it has no line @SCRIPT@, the place of the job's commands")
    return "\n".join(result) + "\n"
