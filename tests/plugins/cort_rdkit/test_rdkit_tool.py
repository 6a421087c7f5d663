from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cort_framework import OpenContext, Outcome, Task, ToolCall, ToolResult
from cort_framework.testing import check_tool
from cort_python.tool import PythonTool
from cort_rdkit.operations import operations
from cort_rdkit.tool import RdkitTool

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def answer(code: str) -> tuple[str, str | None]:
    result = operations.answer({"code": code, "output_limit": 800})
    return result["text"], result["error"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ('canonical("OCC")', "CCO"),
        ('inchi_key("CCO")', "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"),
        ('is_same("OCC", "CCO")', "True"),
        ('is_same("C[C@H](N)O", "C[C@@H](N)O")', "False"),
        (f'formula("{ASPIRIN}")', "C9H8O4"),
        (f'molecular_weight("{ASPIRIN}")', "180.159"),
        (f'exact_mass("{ASPIRIN}")', "180.04226"),
        ('charge("[NH4+]")', "1"),
        (f'heavy_atoms("{ASPIRIN}")', "13"),
        ('atoms("CCO")', "9"),
        ('atoms("CCO", "H")', "6"),
        ('unsaturation("c1ccccc1")', "4"),
        ('unsaturation("CC#N")', "2"),
        ('rings("c1ccc2ccccc2c1")', "2"),
        ('aromatic_rings("C1CCCCC1c1ccccc1")', "1"),
        ('stereo_centers("C[C@H](N)C(=O)O")', "1: 1 C S"),
        ('stereo_centers("CC(O)C(N)C")', "2: 1 C ?, 3 C ?"),
        ('stereo_centers("CCO")', "0"),
        (f'h_bond_donors("{ASPIRIN}")\nh_bond_acceptors("{ASPIRIN}")', "1\n3"),
        (f'logp("{ASPIRIN}")', "1.3101"),
        (f'tpsa("{ASPIRIN}")', "63.60"),
        ('substructure_count("OCCO", "[OH]")', "2"),
        ('similarity("CCO", "CCO")', "1.0000"),
        ('{"operation": "rings", "smiles": "c1ccccc1"}', "1"),
        ("formula(CCO)", "C2H6O"),
    ],
)
def test_operations_give_what_rdkit_gives(code: str, text: str) -> None:
    assert answer(code) == (text, None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            'formula("C1CC")',
            "formula: smiles: 'C1CC' is no valid SMILES (brackets, ring numbers or symbols are wrong)",
        ),
        (
            'formula("CC(C)(C)(C)C")',
            "formula: smiles: 'CC(C)(C)(C)C' is no possible molecule: "
            "Explicit valence for atom # 1 C, 5, is greater than permitted",
        ),
        ('formula("")', 'formula: smiles: a SMILES in quotes is expected, as in "CCO"'),
        ('atoms("CCO", "Xx")', "ValueError: there is no element 'Xx'"),
        ('substructure_count("CCO", "[OH")', "substructure_count: pattern: '[OH' is no valid SMARTS pattern"),
        ('formulas("C")', "there is no operation 'formulas'; did you mean formula?"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(code: str, error: str) -> None:
    assert answer(code)[1] == error


def test_a_smiles_without_quotes_is_told_to_have_them() -> None:
    assert "quotes" in answer(f"formula({ASPIRIN})")[0]


def test_the_tool_answers_fences_and_native_calls_from_a_worker(tmp_path: Path) -> None:
    async def run() -> list[ToolResult]:
        tool = RdkitTool()
        await tool.open(OpenContext(scratch=tmp_path))
        try:
            async with tool.session(Task("t", "p"), trajectory_id="a", seed=0) as session:
                return [
                    await session.call(ToolCall("rdkit", f'describe("{ASPIRIN}")')),
                    await session.call(
                        ToolCall("rdkit", arguments={"operation": "rings", "smiles": "C1CC1"})
                    ),
                    await session.call(ToolCall("rdkit", 'canonical("C")\ncanonical("nope")')),
                ]
        finally:
            await tool.close()

    described, native, half = asyncio.run(run())
    assert described.outcome is Outcome.OK and "formula: C9H8O4" in described.text
    assert native.text == "1"
    assert half.outcome is Outcome.PROGRAM_ERROR and half.text.startswith("C\nerror: ")


def test_the_tool_keeps_the_contract_of_tools() -> None:
    assert check_tool(RdkitTool, 'formula("CCO")').text == "C2H6O"


def test_the_native_schema_is_json() -> None:
    schema = json.loads(json.dumps(RdkitTool.parameters))
    assert {"operation", "smiles"} == set(schema["anyOf"][0]["properties"])


def test_listing_the_tool_imports_no_rdkit() -> None:
    code = "import sys, cort_rdkit; cort_rdkit.cort_tools(); print('rdkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_beside_the_python_tool_rdkit_is_there_before_a_session_starts(tmp_path: Path) -> None:
    async def run() -> ToolResult:
        tool = PythonTool()
        await tool.open(OpenContext(scratch=tmp_path, preload=RdkitTool.preload))
        try:
            async with tool.session(Task("t", "p"), trajectory_id="a", seed=0) as session:
                code = "import sys\nprint('rdkit' in sys.modules)\nfrom rdkit import Chem\nChem.MolFromSmiles('CCO')"
                return await session.call(ToolCall("python", code))
        finally:
            await tool.close()

    result = asyncio.run(run())
    assert result.text.startswith("True\n<rdkit.Chem.rdchem.Mol at 0x...>")
