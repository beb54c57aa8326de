"""The Kubernetes API as attaching needs it: pods as plain dicts, exec, attach, logs, jobs.

What the API refuses becomes `Refused` with its status and its own words.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ragprof.errors import RagprofError

_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = (10, 60)  # seconds to connect, to answer


class PodError(RagprofError):
    """A pod that cannot be profiled: says why, and what would have to be allowed."""


class Refused(PodError):
    """What the API server answered instead: HTTP status and message (0: no answer)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cluster(NamedTuple):
    """A connection; `namespace` is the one of the kubeconfig's context."""

    core: Any
    batch: Any
    authorization: Any
    namespace: str

    def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """The pod. Raises `Refused`."""
        with _refusals():
            return _json(
                self.core.read_namespaced_pod(
                    name, namespace, _preload_content=False, _request_timeout=TIMEOUT
                )
            )

    def add_ephemeral(self, namespace: str, name: str, container: dict[str, Any]) -> None:
        """Add an ephemeral container to a pod; it can end, but not be removed again."""
        with _refusals():
            self.core.patch_namespaced_pod_ephemeralcontainers(
                name,
                namespace,
                {"spec": {"ephemeralContainers": [container]}},
                _content_type="application/strategic-merge-patch+json",
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )

    def read_log(self, namespace: str, name: str, container: str) -> str:
        """All that a container has written so far."""
        with _refusals():
            answer = self.core.read_namespaced_pod_log(
                name,
                namespace,
                container=container,
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )
            content: bytes = answer.data
            return content.decode("utf-8", "replace")

    def create_job(self, namespace: str, job: dict[str, Any]) -> None:
        """Create a job."""
        with _refusals():
            self.batch.create_namespaced_job(
                namespace, job, _preload_content=False, _request_timeout=TIMEOUT
            )

    def delete_job(self, namespace: str, name: str) -> None:
        """Delete a job and its pod; one that is gone already is no error."""
        with _refusals(but=404):
            self.batch.delete_namespaced_job(
                name,
                namespace,
                propagation_policy="Background",
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )

    def job_pods(self, namespace: str, job: str) -> list[dict[str, Any]]:
        """The pods of a job."""
        with _refusals():
            listed = self.core.list_namespaced_pod(
                namespace,
                label_selector=f"job-name={job}",
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )
            return list(_json(listed).get("items") or [])

    def events(self, namespace: str, kind: str, name: str) -> list[str]:
        """What Kubernetes noted about one object; empty when that may not be read."""
        try:
            with _refusals():
                listed = self.core.list_namespaced_event(
                    namespace,
                    field_selector=f"involvedObject.kind={kind},involvedObject.name={name}",
                    _preload_content=False,
                    _request_timeout=TIMEOUT,
                )
                items = _json(listed).get("items") or []
        except Refused:
            return []
        return [str(item.get("message") or "") for item in items]

    def may(self, namespace: str, verb: str, resource: str, group: str = "") -> bool:
        """Whether this user may do that; `resource` may name a subresource: ``pods/exec``."""
        kind, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": kind}
        if subresource:
            attributes["subresource"] = subresource
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        with _refusals():
            answer = self.authorization.create_self_subject_access_review(
                review, _preload_content=False, _request_timeout=TIMEOUT
            )
            return bool(_json(answer).get("status", {}).get("allowed"))

    def open_exec(self, namespace: str, name: str, container: str, command: Sequence[str]) -> Any:
        """A command in a running container, its streams open. Raises `Refused`."""
        return self._open(
            self.core.connect_get_namespaced_pod_exec,
            name,
            namespace,
            container=container,
            command=list(command),
        )

    def open_attach(self, namespace: str, name: str, container: str) -> Any:
        """The standard streams of a container's first process. Raises `Refused`."""
        return self._open(
            self.core.connect_get_namespaced_pod_attach, name, namespace, container=container
        )

    def _open(self, call: Callable[..., Any], *path: str, **options: Any) -> Any:
        from kubernetes.stream import stream

        with _refusals():
            return stream(
                call,
                *path,
                **options,
                stdin=True,
                stdout=True,
                stderr=True,
                tty=False,
                binary=True,
                _preload_content=False,
            )

    @contextmanager
    def forwarded(self, namespace: str, name: str, port: int) -> Iterator[Any]:
        """A socket to a port of the pod. Raises `Refused`."""
        from kubernetes.stream import portforward

        with _refusals():
            forward = portforward(
                self.core.connect_get_namespaced_pod_portforward, name, namespace, ports=str(port)
            )
        try:
            yield forward.socket(port)
        finally:
            forward.close()


def connect(context: str | None = None) -> Cluster:
    """By kubeconfig as kubectl reads it, else as the service account of the pod we run in.

    Raises `PodError` when there is neither, or the kubeconfig is wrong.
    """
    try:
        client: Any = importlib.import_module("kubernetes.client")
        config: Any = importlib.import_module("kubernetes.config")
    except ModuleNotFoundError as error:
        raise PodError(
            f"attaching to a pod needs {error.name!r}, which is not installed: "
            'pip install "ragprof[pods]"'
        ) from error
    configuration = client.Configuration()
    files = os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    there = any(os.path.exists(file) for file in files.split(os.pathsep) if file)
    namespace = "default"
    try:
        if there or context or not (_IN_CLUSTER / "token").exists():
            # Named here: the library looks at KUBECONFIG only when it is imported.
            config.load_kube_config(files, context=context, client_configuration=configuration)
            contexts, active = config.list_kube_config_contexts(files)
            used = next((each for each in contexts if each["name"] == context), active)
            namespace = (used.get("context") or {}).get("namespace") or namespace
        else:
            config.load_incluster_config(client_configuration=configuration)
            namespace = (_IN_CLUSTER / "namespace").read_text().strip() or namespace
    except (config.ConfigException, OSError, ValueError, KeyError, AttributeError) as error:
        raise PodError(
            f"no way to a cluster: {str(error).rstrip('.')}. Set KUBECONFIG, or run where "
            "`kubectl get pods` works."
        ) from error
    configuration.retries = 2
    api = client.ApiClient(configuration)
    return Cluster(
        client.CoreV1Api(api), client.BatchV1Api(api), client.AuthorizationV1Api(api), namespace
    )


def names(pod: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of ``NAMESPACE/NAME``, or of a name in ``namespace``."""
    words = pod.removeprefix("pod/").split("/")
    if len(words) > 2 or not all(words):
        raise PodError(f"{pod!r} is not a pod: give NAMESPACE/NAME, or NAME.")
    return (namespace, words[0]) if len(words) == 1 else (words[0], words[1])


def _json(answer: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(answer.data)
    return content


@contextmanager
def _refusals(but: int | None = None) -> Iterator[None]:
    """Turns the client library's exceptions into `Refused`; passes Ctrl-C on."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        # The stream functions swallow Ctrl-C and the status of the handshake into this exception.
        inner = error.__context__
        if isinstance(inner, KeyboardInterrupt | SystemExit):
            raise inner from None
        status = error.status or getattr(inner, "status_code", 0) or 0
        body = error.body or getattr(inner, "resp_body", None)
        if status != but:
            raise Refused(status, _message(body) or str(error.reason or inner or error)) from error
    except HTTPError as error:
        raise Refused(0, f"the API server does not answer: {_innermost(error)}") from error


def _message(body: Any) -> str:
    """The sentence in a Status object, which is how Kubernetes says no."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(body or "").strip()[:300]


def _innermost(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason if reason is not None else error)
