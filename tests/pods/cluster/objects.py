"""Pods, namespaces, and users with only some rights, as the tests make them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kubernetes import client, config

from cluster import images
from cluster.node import Node

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
READ = ("", "pods", ("get", "list", "watch"))


class Cluster:
    """The node's API for the tests, as administrator."""

    def __init__(self, node: Node) -> None:
        self.node = node
        api = config.new_client_from_config(str(node.kubeconfig))
        self.core = client.CoreV1Api(api)
        self.batch = client.BatchV1Api(api)
        self.rbac = client.RbacAuthorizationV1Api(api)
        self.pods: list[str] = []  # those that run, as namespace/name

    def namespace(self, name: str, level: str = "privileged") -> str:
        """A namespace with a Pod Security level."""
        labels = {"pod-security.kubernetes.io/enforce": level}
        self.core.create_namespace({"metadata": {"name": name, "labels": labels}})
        with contextlib.suppress(client.ApiException):  # the controller may have been first
            self.core.create_namespaced_service_account(name, {"metadata": {"name": "default"}})
        return name

    def pod(
        self,
        namespace: str,
        name: str,
        containers: Iterable[dict[str, Any]] = (),
        *,
        image: str = "app",
        user: int | None = 1000,
        ready: bool = True,
        security: dict[str, Any] | None = None,
        pod_security: dict[str, Any] | None = None,
        share_processes: bool = False,
        says: str = "serving as",
        **container: Any,
    ) -> str:
        """Create a pod on the node; its ``namespace/name`` once it runs and its log ``says`` so."""
        whose = {} if user is None else {"runAsUser": user, "runAsGroup": user}
        if not containers:
            one = {"name": "app", "image": images.reference(image), **container}
            if security is not None:
                one["securityContext"] = security
            containers = [one]
        volumes = [
            {"name": mount["name"], "emptyDir": {}}
            for one in containers
            for mount in one.get("volumeMounts", ())
        ]
        spec = {
            "nodeName": "node1",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {**whose, **(pod_security or {})},
            "volumes": volumes,
            "shareProcessNamespace": share_processes,
            "containers": [{"imagePullPolicy": "Never", **one} for one in containers],
        }
        self.core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec})
        self.pods.append(f"{namespace}/{name}")
        if ready:
            until(lambda: self._runs(namespace, name), 400)
            first = next(iter(containers))["name"]
            until(lambda: says in self.log(f"{namespace}/{name}", first), 400)
        return f"{namespace}/{name}"

    def remove(self, pods: Iterable[str]) -> None:
        """Delete pods, at once and without waiting for it."""
        for pod in list(pods):
            namespace, name = pod.split("/")
            with contextlib.suppress(client.ApiException):  # a test may have deleted it
                self.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
            self.pods.remove(pod)

    def _runs(self, namespace: str, name: str) -> bool:
        statuses = self.read(f"{namespace}/{name}").status.container_statuses or []
        return bool(statuses) and all(each.state.running for each in statuses)

    def read(self, pod: str) -> Any:
        namespace, name = pod.split("/")
        return self.core.read_namespaced_pod(name, namespace)

    def log(self, pod: str, container: str) -> str:
        namespace, name = pod.split("/")
        return self.core.read_namespaced_pod_log(name, namespace, container=container)

    def processes(self, pod: str) -> list[str]:
        """Command lines of the processes in the pod's (single) container, seen from outside."""
        return processes(self._container_id(pod))

    def files(self, pod: str, folder: str = "/tmp") -> list[str]:
        """What lies in a folder of the pod's (single) container, seen from outside."""
        number = self._container_id(pod)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and number in _text(entry / "cgroup"):
                return sorted(each.name for each in (entry / f"root{folder}").iterdir())
        raise AssertionError(f"{pod} has no process")

    def samples(self, pod: str) -> bool:
        """Whether py-spy looks at the processes of the pod's (single) container, from within."""
        return sampling(self._container_id(pod))

    def _container_id(self, pod: str) -> str:
        return self.read(pod).status.container_statuses[0].container_id.rpartition("//")[2]

    def user(self, namespace: str, name: str, *rules: tuple[str, str, tuple[str, ...]]) -> Path:
        """A service account with these rights in the namespace; its kubeconfig."""
        meta = {"metadata": {"name": name}}
        self.core.create_namespaced_service_account(namespace, meta)
        self.rbac.create_namespaced_role(
            namespace,
            {
                **meta,
                "rules": [
                    {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
                    for group, resource, verbs in rules
                ],
            },
        )
        self.rbac.create_namespaced_role_binding(
            namespace,
            {
                **meta,
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "Role",
                    "name": name,
                },
            },
        )
        return self._kubeconfig(namespace, name)

    def token(self, namespace: str, name: str) -> str:
        request = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        answer = self.core.create_namespaced_service_account_token(name, namespace, request)
        return answer.status.token

    def _kubeconfig(self, namespace: str, name: str) -> Path:
        out = self.node.state / f"{namespace}-{name}.kubeconfig"
        authority = self.node.state / "pki/ca.crt"
        out.write_text(
            "apiVersion: v1\nkind: Config\n"
            f'clusters: [{{name: test, cluster: {{server: "{self.node.api}", '
            f"certificate-authority: {authority}}}}}]\n"
            f"users: [{{name: it, user: {{token: {self.token(namespace, name)}}}}}]\n"
            "contexts: [{name: test, context: {cluster: test, user: it, "
            f"namespace: {namespace}}}}}]\n"
            "current-context: test\n"
        )
        return out


def processes(container_id: str) -> list[str]:
    """Command lines of the processes of a container, whichever kind it is."""
    return [
        _text(folder / "cmdline").replace("\0", " ").strip()
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and container_id in _text(folder / "cgroup")
    ]


def sampling(container_id: str) -> bool:
    """Whether py-spy in a container has taken samples: it sleeps before each of them.

    Nothing shows them before the end, and how long the start takes depends on the machine.
    """
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or container_id not in _text(folder / "cgroup"):
            continue
        if "py-spy\0record" in _text(folder / "cmdline"):
            threads = [_text(thread / "status") for thread in folder.glob("task/*")]
            waits = [
                re.search(r"^voluntary_ctxt_switches:\s*(\d+)", each, re.M) for each in threads
            ]
            return sum(int(found[1]) for found in waits if found) > 300
    return False


def until(condition: Any, seconds: float) -> None:
    """Wait for a condition; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.1)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
