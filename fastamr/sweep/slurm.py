"""The runs of a sweep as one job array of SLURM: a script that saves before its time is over and takes another turn."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from string import Template

from .plan import Member

_SCRIPT = Template(
    """\
#!/bin/bash
#SBATCH --job-name=$name --array=0-$last --ntasks=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=04:00:00 --requeue --open-mode=append --signal=B:USR1@180
case "$$SLURM_ARRAY_TASK_ID" in
$cases
  *) echo "no run $$SLURM_ARRAY_TASK_ID: 0 to $last" >&2; exit 2 ;;
esac
job="$${SLURM_ARRAY_JOB_ID}_$$SLURM_ARRAY_TASK_ID"
asked=0
trap 'asked=1; scancel --signal=TERM "$$job"' USR1
trap : TERM
srun fastamr pretrain "$${words[@]}" &
child=$$!
while kill -0 "$$child" 2>/dev/null; do wait "$$child"; done
wait "$$child"; code=$$?
if [ "$$asked" = 1 ] && [ "$$code" != 0 ]; then scontrol requeue "$$job"; fi
exit "$$code"
"""
)


def array_script(members: Sequence[Member], name: str) -> str:
    """Return a batch script whose tasks make a run each, on one GPU.

    Args:
        members: the runs.
        name: of the job; what SLURM would not take in a name becomes a dash.
    """
    cases = "\n".join(
        f"  {number}) words=({shlex.join(member.words)}) ;;" for number, member in enumerate(members)
    )
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip("-")
    return _SCRIPT.substitute(name=safe or "sweep", last=len(members) - 1, cases=cases)
