"""The profile report of a real pod: what was seen, and the change since its run before."""

from __future__ import annotations

from conftest import functions

from ragprof.profiles.compare import Comparison
from ragprof.reports import profiles
from ragprof.reports.kernel import REPORT_FOLDER


def test_a_pod_against_its_run_before(cluster, apps, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(cluster.node.kubeconfig))
    monkeypatch.setenv(REPORT_FOLDER, str(tmp_path))
    pod = cluster.pod(apps, "reported")
    first = profiles.read(pod=pod, seconds=1)
    assert first.earlier is None
    assert first.subject == f"pod {pod}"
    second = profiles.read(pod=pod, seconds=1)
    assert second.earlier is not None
    assert "busy_hash" in functions(second.profile)
    assert isinstance(profiles.change(second), Comparison)
    assert "busy_hash" in profiles.flamegraph(second).text()
