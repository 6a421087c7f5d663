"""Any Jupyter client can start a forked kernel: these tests use jupyter-client's own and none of our code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

SPEC = Path(__file__).parents[3] / "plugins" / "cort-python" / "kernelspec" / "kernel.json"


def manager(folder: Path, transport: str) -> KernelManager:
    spec = json.loads(SPEC.read_text())
    spec["argv"][0] = sys.executable
    (folder / "cort-python").mkdir()
    (folder / "cort-python" / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder)])
    return KernelManager(kernel_name="cort-python", kernel_spec_manager=specs, transport=transport)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_stock_jupyter_client_starts_uses_restarts_and_ends_a_forked_kernel(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kernels = manager(tmp_path, transport)
    kernels.start_kernel()
    client = kernels.client()
    client.start_channels()

    def run(code: str) -> tuple[str, list[tuple[str, Any]]]:
        seen: list[dict[str, Any]] = []
        reply = client.execute_interactive(code, timeout=30, output_hook=seen.append)
        shown = {"stream": "text", "execute_result": "data", "error": "ename"}
        content = [
            (m["msg_type"], m["content"][shown[m["msg_type"]]]) for m in seen if m["msg_type"] in shown
        ]
        return reply["content"]["status"], content

    try:
        client.wait_for_ready(timeout=30)
        assert kernels.provisioner.forked is not None
        assert run("x = 1\nprint('printed')\nx + 1") == (
            "ok",
            [("stream", "printed\n"), ("execute_result", {"text/plain": "2"})],
        )
        assert run("1 / 0") == ("error", [("error", "ZeroDivisionError")])
        assert run("x") == ("ok", [("execute_result", {"text/plain": "1"})])
        assert "print" in client.complete("pri", reply=True, timeout=30)["content"]["matches"]
        assert client.hb_channel.is_beating()
        kernels.restart_kernel()
        client.wait_for_ready(timeout=30)
        assert run("x") == ("error", [("error", "NameError")])
    finally:
        client.stop_channels()
        kernels.shutdown_kernel()
    assert not kernels.is_alive()


def test_nbclient_runs_a_notebook_in_a_forked_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    from nbformat.v4 import new_code_cell, new_notebook

    monkeypatch.chdir(tmp_path)
    sources = ("x = 6", "print('printed')\nx * 7", "display(x)", "!echo shell", "1 / 0", "'after'")
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = nbclient.NotebookClient(notebook, km=manager(tmp_path, "ipc"), allow_errors=True, timeout=60)
    client.execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert outputs[0] == []
    assert [(o.output_type, o.get("text") or o.data["text/plain"]) for o in outputs[1]] == [
        ("stream", "printed\n"),
        ("execute_result", "42"),
    ]
    assert outputs[2][0].data["text/plain"] == "6"
    assert outputs[3][0].text == "shell\n"
    assert outputs[4][0].ename == "ZeroDivisionError"
    assert outputs[5][0].data["text/plain"] == "'after'"
