"""A live pod, profiled through the Kubernetes API: `attach` climbs a ladder until a rung holds.

`cluster` is the API, `target` what is to be profiled, `execution`, `endpoint`, `ephemeral` and
`job` are the rungs, `inside/` runs in the containers, `rights` says what must be allowed.
"""

from ragprof.profiling.pods.cluster import PodError
from ragprof.profiling.pods.ladder import attach

__all__ = ["PodError", "attach"]
