"""What the process may use of its machine: the CPUs of its affinity mask and of its control groups.

:mod:`.processors` counts them and tells OpenMP, :mod:`.control_groups` finds the groups' folders. Nothing here imports
torch: commands call it before torch, and with it OpenMP, is loaded.
"""

from .processors import allowed_cpus, host_cpus, share_cpus

__all__ = ["allowed_cpus", "host_cpus", "share_cpus"]
