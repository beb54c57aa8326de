"""Notebooks run headless: parameters, failures, timeouts, signals, what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from reporting import hostile, notebook

from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.reports import catalogue, html, investigation, lab, parameters, runner, status

COMMAND = (sys.executable, "-c", "import sys; from ragprof.cli import main; sys.exit(main())")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return hostile(tmp_path_factory.mktemp("recording") / "a.ragprof")


@pytest.fixture(scope="module")
def written(recording, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    assert investigation.write(recording, out) == out / "report.html"
    return out


def test_leaves_everything(written):
    names = {path.name for path in written.iterdir()}
    assert names == {"report.ipynb", "report.html", "findings.json", "summary.md", "status.json"}
    assert json.loads((written / "findings.json").read_text())["verdict"] == "cause_found"
    page = (written / "report.html").read_text()
    assert len(page.encode()) < html.LARGEST
    for section in ("Timeline", "Distribution", "Stages", "Slowest trace", "Flame graph", "Logs",
                    "Metrics", "Attributes", "Changes", "Coverage", "Reproduce"):  # fmt: skip
        assert f">{section}<" in page
    assert page.count("<h1") == 1
    assert '<html lang="en">' in page
    assert "SELECT" in page
    assert "&lt;script&gt;window.broken" in page.replace("&amp;lt;", "&lt;")
    assert "<script>window.broken" not in page


def test_status_of_success(written):
    told = status.read(written)
    assert told["state"] == "ok"
    assert told["error"] is None
    assert told["seconds"] > 0
    assert told["parameters"]["recording"].endswith("a.ragprof")


def test_summary_is_ten_lines(written):
    lines = (written / "summary.md").read_text().splitlines()
    assert 4 <= len(lines) <= 10
    assert re.fullmatch(r"\*\*.*\*\*", lines[0])
    assert "rerank" in "\n".join(lines)
    prose = re.sub(r"`[^`]*`", "", "".join(lines))  # in code spans Markdown shows markup as it is
    assert "rank" in prose
    assert not re.search(r"(?<!\\)<", prose)


def test_parameters_and_own_kernel(tmp_path):
    broken = tmp_path / "jupyter" / "kernels" / "python3"
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text('{"argv": ["/no/such/python"], "language": "python"}')
    name = notebook(tmp_path / "a{b}.ipynb", "import sys, os\nprint(n, sys.executable)")
    env = os.environ | {"JUPYTER_PATH": str(tmp_path / "jupyter"), "HOME": "/proc/1/no"}
    done = subprocess.run(
        [*COMMAND, "report", name, "-p", "n=5", "--out", str(tmp_path / "o{n}"), "--json"],
        env=env,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "ok"
    assert told["parameters"] == {"n": 5}
    cells = nbformat.read(tmp_path / "o{n}" / "report.ipynb", 4).cells
    assert cells[-1].outputs[0].text == f"5 {sys.executable}\n"
    page = (tmp_path / "o{n}" / "report.html").read_text()
    assert "<title>A small report</title>" in page
    assert "how many" not in page  # the parameters cell is no part of the report


def test_failing_cell(tmp_path, capsys):
    name = notebook(
        tmp_path / "a.ipynb", "print('before')", "# why\n1 / 0  # <b>", "print('after')"
    )
    assert main(["report", name, "--out", str(tmp_path / "o")]) == 1
    message = capsys.readouterr().err
    assert "cell 4 (`1 / 0  # <b>`) failed: ZeroDivisionError: division by zero" in message
    assert str(tmp_path / "o" / "report.ipynb") in message
    told = status.read(tmp_path / "o")
    assert told["state"] == "failed"
    assert told["error"]["cell"] == {"number": 4, "line": "1 / 0  # <b>"}
    page = (tmp_path / "o" / "report.html").read_text()
    assert "This report is not complete." in page
    assert "<code>1 / 0  # &lt;b&gt;</code>" in page
    assert "before" in page
    kept = nbformat.read(tmp_path / "o" / "report.ipynb", 4)
    assert kept.cells[-1].execution_count is None


def test_timeout_names_the_cell_and_marks_it(tmp_path):
    pid = tmp_path / "pid"
    name = notebook(
        tmp_path / "a.ipynb",
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))",
        "time.sleep(600)",
    )
    with pytest.raises(runner.ReportError, match=r"cell 4 \(`time.sleep\(600\)`\) ran past") as got:
        runner.run(name, tmp_path / "o", cell_timeout=1.5)
    assert got.value.status["state"] == "timeout"
    assert status.read(tmp_path / "o")["state"] == "timeout"
    cells = nbformat.read(tmp_path / "o" / "report.ipynb", 4).cells
    assert cells[3].metadata.papermill.status == "failed"
    assert gone(int(pid.read_text()))


def test_dead_kernel(tmp_path):
    name = notebook(tmp_path / "a.ipynb", "import os\nos._exit(9)")
    with pytest.raises(runner.ReportError, match="killed the kernel"):
        runner.run(name, tmp_path / "o")
    assert status.read(tmp_path / "o")["error"]["cell"]["number"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_leave_no_kernel(tmp_path, number):
    pid = tmp_path / "pid"
    name = notebook(
        tmp_path / "a.ipynb",
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    process = subprocess.Popen([*COMMAND, "report", name, "--out", str(tmp_path / "o")])
    try:
        until(lambda: pid.exists() and pid.read_text(), 60)
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()
    until(lambda: gone(int(pid.read_text())), 20)
    told = status.read(tmp_path / "o")
    assert told["state"] == ("killed" if number == signal.SIGKILL else "failed")
    assert told["cell"]["number"] == 3
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert (tmp_path / "o" / "report.ipynb").is_file()


def test_two_at_once(tmp_path):
    name = notebook(tmp_path / "a.ipynb", "import time\ntime.sleep(1)\nprint(n)")
    running = [
        subprocess.Popen(
            [*COMMAND, "report", name, "-p", f"n={n}", "--out", str(tmp_path / str(n))]
        )
        for n in (1, 2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    for n in (1, 2):
        cells = nbformat.read(tmp_path / str(n) / "report.ipynb", 4).cells
        assert cells[-1].outputs[0].text == f"{n}\n"


def test_a_folder_in_use_is_refused(tmp_path):
    name = notebook(tmp_path / "a.ipynb", "1")
    with runner._folder(tmp_path), pytest.raises(RagprofError, match="another report"):
        runner.run(name, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("m=1", "no parameter 'm'.*it has n, rate, names, on"),
        ("nmes=[]", "did you mean 'names'"),
        ("n=many", "'n' is int, not 'many'; give a whole number"),
        ("n=1.5", "'n' is int"),
        ("on=perhaps", "true or false"),
        ("names={}", "JSON list"),
        ("n", "not KEY=VALUE"),
    ],
)
def test_bad_parameters_run_nothing(tmp_path, capsys, given, message):
    name = notebook(
        tmp_path / "a.ipynb",
        "raise SystemExit",
        parameters="n = 3\nrate = 0.5\nnames: list[str] = []\non = True",
    )
    assert main(["report", name, "-p", given, "--out", str(tmp_path / "o")]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "o").exists()


def test_parameters_are_read_as_their_types(tmp_path):
    name = notebook(
        tmp_path / "a.ipynb",
        parameters="n: int | None = None  # count\n# from above\nrate = 0.5\n"
        "on = False\nd = {'a': 1}",
    )
    known = catalogue.find(name).parameters
    assert [(one.type, one.optional, one.help) for one in known.values()] == [
        ("int", True, "count"),
        ("float", False, "from above"),
        ("bool", False, ""),
        ("dict", False, ""),
    ]
    checked = parameters.check(known, {"n": "none", "rate": 2, "on": "yes", "d": '{"b": 2}'}, "a")
    assert checked == {"n": None, "rate": 2.0, "on": True, "d": {"b": 2}}


def test_default_that_is_code_is_refused(tmp_path):
    name = notebook(tmp_path / "a.ipynb", parameters="n = open('/etc/passwd')")
    with pytest.raises(RagprofError, match="not a literal"):
        catalogue.find(name)


def test_recording_is_checked_first(tmp_path, capsys):
    out = str(tmp_path / "o")
    assert main(["report", "investigate_slow_traces", "--out", out]) == 1
    assert "needs a recording: give it as -p recording=PATH" in capsys.readouterr().err
    missing = f"recording={tmp_path}/no.ragprof"
    assert main(["report", "investigate_slow_traces", "-p", missing, "--out", out]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not Path(out).exists()


def test_list(capsys):
    assert main(["report", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    own = next(one for one in listed if one["name"] == "investigate_slow_traces")
    names = [one["name"] for one in own["parameters"]]
    assert names == ["recording", "slow", "window", "baseline", "operation", "source"]
    assert all(one["help"] for one in own["parameters"])
    with pytest.raises(RagprofError, match="did you mean 'investigate_slow_traces'"):
        catalogue.find("investigate_slow_trace")


def test_large_outputs_are_cut(tmp_path):
    big = nbformat.v4.new_output("display_data", {"text/html": "<p>" + "x" * 4_000_000 + "</p>"})
    text = nbformat.v4.new_output("stream", text="y" * 4_000_000)
    cell = nbformat.v4.new_code_cell("1", outputs=[big, text])
    page = html.page(nbformat.v4.new_notebook(cells=[cell]))
    assert len(page.encode()) < html.LARGEST
    assert "An output of 4.0 MB is left out here" in page


def test_scripts_only_in_frames_of_bundled_notebooks():
    output = nbformat.v4.new_output("display_data", {"text/html": "<script>1</script>"})
    cells = [nbformat.v4.new_code_cell("1", outputs=[output])]
    bundled = html.page(nbformat.v4.new_notebook(cells=cells, metadata={"ragprof": {"title": "x"}}))
    users = html.page(nbformat.v4.new_notebook(cells=cells))
    assert "script-src &#x27;none&#x27;" in bundled
    assert "script-src &#x27;unsafe-inline&#x27;" in users
    assert "default-src &#x27;none&#x27;" in users


def test_windows_are_texts():
    low, high = investigation.window_of("2026-01-01T10:00:00+02:00..2026-01-01T09:00:00Z", "window")
    assert (low.isoformat(), high.isoformat()) == (
        "2026-01-01T08:00:00+00:00",
        "2026-01-01T09:00:00+00:00",
    )
    for wrong in ("x", "2026-01-01..2026-01-02", "2026-01-02T00:00:00Z..2026-01-01T00:00:00Z"):
        with pytest.raises(RagprofError, match="parameter 'window'"):
            investigation.window_of(wrong, "window")


def test_lab_notebook_has_its_parameters(tmp_path, recording):
    first = lab.prepare("investigate_slow_traces", {"recording": str(recording.path)}, tmp_path)
    assert first == lab.prepare("investigate_slow_traces", {"recording": recording.path}, tmp_path)
    other = lab.prepare(
        "investigate_slow_traces", {"recording": recording.path, "slow": "80ms"}, tmp_path
    )
    assert other.name == "investigate_slow_traces-2.ipynb"
    known = catalogue.find(other).parameters
    assert known["slow"].default == "80ms"
    assert known["recording"].default == str(recording.path)
    assert known["window"].help


def test_lab_serves_on_loopback_with_this_python(tmp_path, recording):
    process = subprocess.Popen(
        [*COMMAND, "lab", str(recording.path), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://127.0.0.1:" in line)
        address = line.split()[-1]
        root, _, token = address.partition("/lab/tree/investigate_slow_traces.ipynb?token=")
        request = urllib.request.Request(
            f"{root}/api/kernelspecs", headers={"Authorization": f"token {token}"}
        )
        specs = answered(request)["kernelspecs"]
        assert specs["python3"]["spec"]["argv"][0] == sys.executable
        assert (tmp_path / "ragprof-lab" / "investigate_slow_traces.ipynb").is_file()
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def answered(request, seconds: float = 60):
    """The JSON answer of a server that says its address before it listens."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while True:
        try:
            with opener.open(request, timeout=seconds) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            assert time.monotonic() < end
            time.sleep(0.2)


def until(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"
