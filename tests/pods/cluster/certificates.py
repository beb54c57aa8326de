"""The certificates of a node that lives as long as the tests: openssl, elliptic curves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from string import Template

ADDRESS = "10.90.0.1"
_NAMES = (
    f"IP:{ADDRESS},IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,"
    "DNS:kubernetes.default.svc"
)
# Name -> (subject, alternative names of a server).
CERTIFICATES = {
    "apiserver": ("/CN=kube-apiserver", _NAMES),
    "kubelet-serving": ("/CN=system:node:node1", f"IP:{ADDRESS},DNS:node1"),
    "admin": ("/O=system:masters/CN=admin", ""),
    "apiserver-kubelet-client": ("/O=system:masters/CN=kube-apiserver-kubelet-client", ""),
    "kubelet": ("/O=system:nodes/CN=system:node:node1", ""),
    "controllers": ("/CN=system:kube-controller-manager", ""),
}
USERS = ("admin", "kubelet", "controllers")
_KUBECONFIG = Template("""\
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "$server", certificate-authority: $folder/ca.crt}}]
users:
- {name: $user, user: {client-certificate: $folder/$user.crt, client-key: $folder/$user.key}}
contexts: [{name: test, context: {cluster: test, user: $user}}]
current-context: test
""")


def make(folder: Path) -> None:
    """Authority, servers, users and the key of the service accounts' tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        folder, "req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
        "-subj", "/CN=test-authority",
    )  # fmt: skip
    for name, (subject, names) in CERTIFICATES.items():
        extensions = "extendedKeyUsage=clientAuth,serverAuth\n"
        (folder / "extensions").write_text(
            extensions + (f"subjectAltName={names}\n" if names else "")
        )
        _openssl(
            folder, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", "request", "-subj", subject
        )
        _openssl(
            folder, "x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{name}.crt",
        )  # fmt: skip
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")
    _openssl(folder, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    for user in USERS:
        kubeconfig(folder, user, f"https://{ADDRESS}:6443", folder / f"{user}.kubeconfig")


def kubeconfig(folder: Path, user: str, server: str, out: Path) -> Path:
    """A kubeconfig of one of the users, for a server address."""
    out.write_text(_KUBECONFIG.substitute(server=server, folder=folder, user=user))
    return out


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, stderr=subprocess.DEVNULL)
