"""What an administrator has to allow for each rung, as Kubernetes objects ready to apply."""

from __future__ import annotations

import textwrap
from string import Template
from typing import NamedTuple

from ragprof.profiling.pods.cluster import Cluster

Rule = tuple[str, str, tuple[str, ...]]  # API group, resource, verbs

_READ: Rule = ("", "pods", ("get",))
_ATTACH: Rule = ("", "pods/attach", ("get", "create"))
_LOG: Rule = ("", "pods/log", ("get",))


class Rung(NamedTuple):
    """One way into a pod."""

    name: str
    title: str
    text: str
    rules: tuple[Rule, ...]
    pod: str = ""
    """What the pod or the namespace must have besides."""


RUNGS = (
    Rung(
        "exec",
        "py-spy by exec in the container",
        "Runs py-spy as the user of the process; needs no capability. py-spy is sent when the image"
        " has none, and removed afterwards. Works also with a read-only root file system, when the"
        " image has Python or an emptyDir at /tmp.",
        (_READ, ("", "pods/exec", ("get", "create"))),
        """\
# In the pod: nothing is required. What helps:
#   the container's user is that of the service (no change of user after the start)
securityContext: {runAsUser: 1000, runAsGroup: 1000}
#   24 MiB of memory between use and limit: exec is charged to the container
resources: {limits: {memory: 512Mi}}
#   with readOnlyRootFilesystem: true, a folder where py-spy may be put
volumes: [{name: tmp, emptyDir: {}}]
volumeMounts: [{name: tmp, mountPath: /tmp}]
""",
    ),
    Rung(
        "endpoint",
        "the service's own profiler, by port-forward",
        "Asks /debug/pprof/profile of the service (setup_profiling of ragprof.service), which is on"
        " when both sides have the same token in RAGPROF_PROFILING_TOKEN.",
        (_READ, ("", "pods/portforward", ("get", "create"))),
        """\
# In the pod: the token that the service and the caller share, and the port of the endpoint
env: [{name: RAGPROF_PROFILING_TOKEN, valueFrom: {secretKeyRef: {name: ragprof, key: token}}}]
ports: [{name: ragprof, containerPort: 8000}]
""",
    ),
    Rung(
        "ephemeral",
        "an ephemeral container",
        "Runs py-spy beside the process, with its user and without any capability: Pod Security"
        " level restricted admits it. Where the process changed its user, a second try is root"
        " with SYS_PTRACE, which takes level privileged. pods/attach is not needed with an --image"
        " that has py-spy.",
        (_READ, ("", "pods/ephemeralcontainers", ("get", "patch")), _ATTACH, _LOG),
        """\
# In the namespace, only for processes that changed their user:
metadata: {labels: {pod-security.kubernetes.io/enforce: privileged}}
""",
    ),
    Rung(
        "job",
        "a job on the node",
        "Runs py-spy on the pod's node, with the node's processes (hostPID), as root with"
        " SYS_PTRACE. --job-namespace puts it into a namespace made for that.",
        (
            ("", "pods", ("get", "list")),
            ("batch", "jobs", ("create", "delete")),
            ("", "events", ("list",)),
            _ATTACH,
            _LOG,
        ),
        """\
# In the job's namespace:
metadata: {labels: {pod-security.kubernetes.io/enforce: privileged}}
""",
    ),
)

_ROLE = Template("""\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: ragprof-$name, namespace: $namespace}
rules:
$rules---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ragprof-$name, namespace: $namespace}
subjects: [{kind: User, name: $user, apiGroup: rbac.authorization.k8s.io}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ragprof-$name}
""")


def role(rung: Rung, namespace: str, user: str = "SOMEBODY") -> str:
    """The Role of a rung and its binding, as YAML."""
    rules = "".join(
        f'- {{apiGroups: ["{group}"], resources: [{resource}], verbs: [{", ".join(verbs)}]}}\n'
        for group, resource, verbs in rung.rules
    )
    return _ROLE.substitute(name=rung.name, namespace=namespace, rules=rules, user=user)


def lacking(cluster: Cluster, namespace: str) -> dict[str, list[str]]:
    """By rung: what this user lacks for it, as ``verb resource``; empty: nothing."""
    return {
        rung.name: [
            f"{verb} {resource}"
            for group, resource, verbs in rung.rules
            for verb in verbs
            if not cluster.may(namespace, verb, resource, group)
        ]
        for rung in RUNGS
    }


def explain(namespace: str = "NAMESPACE", missing: dict[str, list[str]] | None = None) -> str:
    """All rungs with what to allow for each; ``missing`` (see `lacking`) tells what a user has."""
    parts = [
        "# The ways into a pod, in the order in which `ragprof attach --pod` tries them.\n"
        "# One is enough; the first needs the least.\n"
    ]
    for number, rung in enumerate(RUNGS, 1):
        state = ""
        if missing is not None:
            those = ", ".join(missing[rung.name])
            state = f"# You lack: {those}\n" if those else "# You have these rights.\n"
        comment = "".join(f"# {line}\n" for line in textwrap.wrap(rung.text, 96))
        besides = "".join(
            f"{line}\n" if line.startswith("#") else f"# {line}\n" for line in rung.pod.splitlines()
        )
        parts.append(f"# {number}. {rung.title}\n{comment}{state}{role(rung, namespace)}{besides}")
    return "---\n".join(parts)
