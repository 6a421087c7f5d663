"""The tool as a rollout uses it; its answers are in ``test_rdkit_answers``."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

from cort_framework import OpenContext, Outcome, Task, ToolCall, ToolResult
from cort_framework.testing import ToolCase, check_tool_conformance
from cort_python.tool import PythonTool
from cort_rdkit.operations import operations
from cort_rdkit.tool import RdkitTool

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def test_the_tool_answers_fences_and_native_calls_and_keeps_pictures(tmp_path: Path) -> None:
    async def run() -> list[ToolResult]:
        tool = RdkitTool(RdkitTool.Config(pictures=tmp_path / "kept"))
        await tool.open(OpenContext(scratch=tmp_path))
        try:
            async with tool.session(Task("t", "p"), trajectory_id="a", seed=0) as session:
                return [
                    await session.call(ToolCall("rdkit", f'describe("{ASPIRIN}")')),
                    await session.call(
                        ToolCall("rdkit", arguments={"operation": "rings", "smiles": "C1CC1"})
                    ),
                    await session.call(ToolCall("rdkit", 'canonical("C")\ncanonical("nope")')),
                    await session.call(ToolCall("rdkit", arguments={"operation": "depict", "smiles": "C"})),
                ]
        finally:
            await tool.close()

    described, native, half, drawn = asyncio.run(run())
    assert described.outcome is Outcome.OK and "formula: C9H8O4" in described.text
    assert native.text == "1"
    assert half.outcome is Outcome.PROGRAM_ERROR and half.text.startswith("C\nerror: ")
    (picture,) = (tmp_path / "kept").iterdir()
    assert drawn.text == f"a PNG of 400 × 300 pixels: {picture.name}"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_tool_keeps_the_contract_of_tools() -> None:
    hangs = f'common_substructure("{"C1CC2CC1CC2" * 9}", "{"C1CC2CCC1C2" * 9}", "{"C1C2CCC1CC2" * 9}")'
    check_tool_conformance(
        ToolCase(
            RdkitTool,
            works="formula(CCO)",
            text="C2H6O",
            native={"operation": "formula", "smiles": "CCO"},
            fails="formula(C1CC)",
            hangs=hangs,
            limit_s=2,
            floods=f'atom_table("{"C" * 60}")',
            config={"timeout_s": 2},
        )
    )


def test_the_native_schema_is_json() -> None:
    schema = json.loads(json.dumps(RdkitTool.parameters))
    assert {"operation", "smiles"} == set(schema["anyOf"][0]["properties"])
    assert len(schema["anyOf"]) > 50


def test_the_readme_names_every_operation_and_shows_what_a_call_gives() -> None:
    readme = (Path(__file__).parents[3] / "plugins" / "cort-rdkit" / "README.md").read_text("utf-8")
    rows = " ".join(re.findall(r"^\| .* \| (`.*`) \|$", readme, re.MULTILINE))
    assert set(re.findall(r"\w+", rows)) == {operation.name for operation in operations}
    code, output = re.findall(r"```(?:rdkit|output)\n(.*?)\n```", readme, re.DOTALL)
    assert operations.answer({"code": code, "output_limit": 800})["text"] == output


def test_listing_the_tool_and_making_its_schema_imports_no_rdkit() -> None:
    code = "import sys, cort_rdkit; cort_rdkit.cort_tools()[0].parameters; print('rdkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_beside_the_python_tool_rdkit_is_there_before_a_session_starts_and_one_template_serves_both(
    tmp_path: Path,
) -> None:
    async def run() -> tuple[ToolResult, ToolResult, ToolResult]:
        context = OpenContext(scratch=tmp_path, preload=RdkitTool.preload)
        python, rdkit = PythonTool(), RdkitTool()
        await python.open(context)
        await rdkit.open(context)
        try:
            async with python.session(Task("t", "p"), trajectory_id="a", seed=0) as session:
                code = "import sys\nprint('rdkit' in sys.modules)\nfrom rdkit import Chem\nChem.MolFromSmiles('CCO')"
                cell = await session.call(ToolCall("python", code))
            answer = await rdkit.call(ToolCall("rdkit", "formula(CCO)"))
            await python.close()  # the other goes on
            return cell, answer, await rdkit.call(ToolCall("rdkit", "formula(C)"))
        finally:
            await rdkit.close()

    cell, answer, after = asyncio.run(run())
    assert cell.text.startswith("True\n<rdkit.Chem.rdchem.Mol at 0x...>")
    assert (answer.text, after.text) == ("C2H6O", "CH4")
