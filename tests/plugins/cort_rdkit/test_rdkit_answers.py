"""RDKit's answers against chemistry worked by hand: formulas, tabulated masses, counted isomers, geometry."""

from __future__ import annotations

import base64
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_rdkit.operations import operations

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
ISOTOPES = {
    "H": 1.00782503, "C": 12.0, "N": 14.00307401, "O": 15.99491462, "S": 31.97207069, "Cl": 34.96885271,
}  # fmt: skip
"""Masses of the most abundant isotopes, CODATA/AME."""
WEIGHTS = {
    "H": 1.008,
    "C": 12.011,
    "N": 14.007,
    "O": 15.999,
    "S": 32.06,
    "Cl": 35.45,
    "Ca": 40.078,
    "Cu": 63.546,
}
"""Standard atomic weights, IUPAC, abridged."""


def answer(code: str) -> tuple[str, str | None]:
    result = operations.answer({"code": code, "output_limit": 5000})
    return result["text"], result["error"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        # identity
        ("canonical(OCC)", "CCO"),
        ('canonical("InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3")', "CCO"),
        ("kekule(c1ccccc1)", "C1=CC=CC=C1"),
        ('inchi("CCO")', "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3"),
        ('inchi_key("CCO")', "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"),  # ethanol's
        ('is_same("C[C@H](N)O", "C[C@@H](N)O")', "False"),
        ('without_stereo("C[C@H](N)C(=O)O")', "CC(N)C(=O)O"),
        ('parent("CC(=O)[O-].[Na+]")', "CC(=O)O"),
        ('fragments("CC(=O)[O-].[Na+]")', "2\nCC(=O)[O-]\n[Na+]"),
        ('canonical_tautomer("CC(O)=C")', "CC(C)=O"),  # the enol of acetone
        # composition
        (f'formula("{ASPIRIN}")', "C9H8O4"),
        ('formula("[NH4+]")', "H4N+"),
        ('charge("CC(=O)[O-]")', "-1"),
        (f'heavy_atoms("{ASPIRIN}")', "13"),
        ('atoms("CCO")', "9"),
        ('valence_electrons("CCO")', "20"),  # 2*4 + 6*1 + 6
        ('unsaturation("c1ccccc1")', "4"),
        ('unsaturation("CC#N")', "2"),
        # structure
        ('hybridization("CC#N", 1)', "sp"),
        ('functional_groups("CC(=O)OCC")', "ester: 1"),
        ('functional_groups("NCC(=O)O")', "carboxylic acid: 1\nprimary amine: 1"),
        ('functional_groups("CC(C)=O.OCC=C")', "ketone: 1\nalcohol: 1\nalkene: 1"),
        ('functional_groups("CC")', "none of those known"),
        ('rings("c1ccc2ccccc2c1")', "2"),
        ('ring_sizes("C1CC2CCC1C2")', "[5, 5]"),  # norbornane
        ('aromatic_rings("C1CCCCC1c1ccccc1")', "1"),
        ('spiro_atoms("C1CCC2(C1)CC2")', "1"),
        ('bridgeheads("C1CC2CCC1C2")', "2"),
        ('stereo_centers("C[C@H](N)C(=O)O")', "1: 1 C S"),  # L-alanine
        ('stereo_centers("CC(O)C(N)C")', "2: 1 C ?, 3 C ?"),
        ('stereo_centers("CCO")', "0"),
        (r'stereo_bonds("C/C=C\C")', "1: 1-2 Z"),
        (r"stereo_bonds(C/C=C/C)", "1: 1-2 E"),
        ('stereo_bonds("CC=CC")', "1: 1-2 ?"),
        ('is_chiral("C[C@H](N)C(=O)O")', "True"),
        ('is_chiral("O[C@H](C(=O)O)[C@@H](O)C(=O)O")', "False"),  # meso-tartaric acid
        ('is_chiral("O[C@@H](C(=O)O)[C@@H](O)C(=O)O")', "True"),
        ('mirror_image("C[C@H](N)C(=O)O")', "C[C@@H](N)C(=O)O"),
        # properties: published values
        (f'tpsa("{ASPIRIN}")', "63.60"),  # Ertl
        (f'h_bond_donors("{ASPIRIN}")\nh_bond_acceptors("{ASPIRIN}")', "1\n3"),
        ('rotatable_bonds("CCCCO")', "2"),
        ('fraction_csp3("CCc1ccccc1")', "0.2500"),
        (f'lipinski("{ASPIRIN}")', "0"),
        (f'lipinski("{"C" * 60}")', "2: molecular weight above 500, logP above 5"),
        ('descriptor("CCO", BalabanJ)', "1.63299"),  # 2(1/sqrt(6) + 1/sqrt(6)) for a path of three
        # comparison
        ('substructure_count("OCCO", "[OH]")', "2"),
        ('has_substructure("CCO", "C=O")', "False"),
        ('substructure_atoms("OCCO", "CO")', "[(1, 0), (2, 3)]"),
        ('common_substructure("CCCO", "CCCN")', "3 atoms, 2 bonds: CCC"),
        ('common_substructure("CCOc1ccccc1", "CNc1ccccc1")', "6 atoms, 6 bonds: c1ccccc1"),
        ('scaffold("CCOc1ccc(CN2CCCC2)cc1")', "c1ccc(CN2CCCC2)cc1"),
        ('scaffold("CCO")', "there are no rings"),
        ('similarity("CCO", "OCC", maccs)', "1.0000"),
        ('replace("OCCO", "[OH]", "Cl")', "2\nClCCCl\nOCCCl"),
        # reactions
        ('react("[C:1](=[O:2])[OH].[N;H2:3]>>[C:1](=[O:2])[N:3]", "CC(=O)O", "NC")', "1\nCNC(C)=O"),
        (
            'react("[C:1]=[C:2]>>[C:1]([Br])[C:2]", "CC=C")',
            "2\nCC(C)Br\nCCCBr",
        ),  # both orientations
        (
            'react("[C:1]=[C:2]>>[C:1]", "CCO")',
            "the reactants do not fit the left side, or no product is possible",
        ),
    ],
)
def test_operations_give_what_chemistry_says(code: str, text: str) -> None:
    assert answer(code) == (text, None)


def weighed(formula: str, masses: dict[str, float]) -> float:
    return sum(masses[e] * int(n or 1) for e, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula))


@pytest.mark.parametrize(
    ("smiles", "formula"),
    [
        ("O", "H2O"),
        (ASPIRIN, "C9H8O4"),
        ("Cn1cnc2c1c(=O)n(C)c(=O)n2C", "C8H10N4O2"),  # caffeine
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", "C13H18O2"),  # ibuprofen
        ("OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O", "C6H12O6"),  # glucose
        ("ClCCSCCCl", "C4H8Cl2S"),
    ],
)
def test_masses_are_sums_of_tabulated_ones(smiles: str, formula: str) -> None:
    assert answer(f'formula("{smiles}")')[0] == formula
    assert float(answer(f'exact_mass("{smiles}")')[0]) == pytest.approx(weighed(formula, ISOTOPES), abs=2e-5)
    weight = weighed(formula, WEIGHTS)
    assert float(answer(f'molecular_weight("{smiles}")')[0]) == pytest.approx(weight, abs=0.02)
    assert float(answer(f"formula_weight({formula})")[0]) == pytest.approx(weight, abs=0.02)
    shares = dict(part.split() for part in answer(f'mass_percent("{smiles}")')[0].split(", "))
    carbons = re.search(r"C(\d*)(?![a-z])", formula)
    if carbons:
        expected = 100 * WEIGHTS["C"] * int(carbons[1] or 1) / weight
        assert float(shares["C"]) == pytest.approx(expected, abs=0.02)


def test_a_formula_may_have_brackets_and_water_of_crystallisation() -> None:
    assert float(answer("formula_weight(Ca(OH)2)")[0]) == pytest.approx(40.078 + 2 * 17.007, abs=0.01)
    blue = 63.546 + 32.06 + 9 * 15.999 + 10 * 1.008
    assert float(answer("formula_weight(CuSO4*5H2O)")[0]) == pytest.approx(blue, abs=0.01)
    assert float(answer("formula_weight(Ca3(PO4)2)")[0]) == pytest.approx(310.18, abs=0.01)


@given(st.text(alphabet="CHOa2()[]*. ", max_size=12))
def test_what_is_no_formula_is_a_fault_and_no_crash(text: str) -> None:
    got, error = answer(f'formula_weight("{text}")')
    assert error is None or "is no formula" in error or "there is no element" in error, (got, error)


@pytest.mark.parametrize(
    ("smiles", "count"),
    [
        ("CC(O)C(C)O", 3),  # butane-2,3-diol: a pair and a meso form
        ("CC(O)C(N)C", 4),
        ("CC=CC", 2),
        ("OC(C(=O)O)C(O)C(=O)O", 3),  # tartaric acid
        ("C[C@H](N)C(=O)O", 1),
        ("OCC(O)C(O)C(O)C(O)C=O", 16),  # the aldohexoses
    ],
)
def test_stereoisomers_are_counted_with_meso_forms_once(smiles: str, count: int) -> None:
    lines = answer(f'stereoisomers("{smiles}")')[0].splitlines()
    assert int(lines[0]) == count == len(set(lines[1:]))


def test_acetylacetone_has_its_enol_among_its_tautomers() -> None:
    assert "CC(=O)C=C(C)O" in answer('tautomers("CC(=O)CC(C)=O")')[0].splitlines()


def test_similarity_is_common_bits_over_all_bits() -> None:
    from rdkit import Chem
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    one, other = "CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1O"
    on = [
        set(GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(Chem.MolFromSmiles(s)).GetOnBits())
        for s in (one, other)
    ]
    expected = len(on[0] & on[1]) / len(on[0] | on[1])
    assert answer(f'similarity("{one}", "{other}")')[0] == f"{expected:.4f}"


# --- in space and on paper --------------------------------------------------------------------------------------
def test_conformers_have_known_bond_lengths_and_angles_and_repeat() -> None:
    assert float(answer('atom_distance("CC", 0, 1)')[0]) == pytest.approx(1.53, abs=0.03)
    assert float(answer('atom_distance("C=C", 0, 1)')[0]) == pytest.approx(1.33, abs=0.02)
    assert float(answer('atom_distance("C#C", 0, 1)')[0]) == pytest.approx(1.20, abs=0.02)
    assert float(answer('bond_angle("O", 1, 0, 2)')[0]) == pytest.approx(104.5, abs=1)
    assert float(answer('bond_angle("C", 1, 0, 2)')[0]) == pytest.approx(109.5, abs=0.5)
    assert answer('coordinates("CCO")') == answer('coordinates("CCO")')
    assert len(answer('coordinates("CCO")')[0].splitlines()) == 9
    assert answer('conformers("CC", 3)') == ("0.00, 0.00, 0.00", None)


def test_the_chair_and_the_anti_form_are_the_lowest() -> None:
    energies = [float(e) for e in answer('conformers("CCCC", 12)')[0].split(", ")]
    assert energies[0] == 0 and max(energies) == pytest.approx(0.8, abs=0.3)  # gauche butane, MMFF94


def test_a_structural_formula_is_a_png_of_its_size_named_after_its_content() -> None:
    request = {"code": f'depict("{ASPIRIN}", 320, 200)', "output_limit": 800}
    one, again = operations.answer(request), operations.answer(request)
    assert one == again
    ((name, data),) = one["files"].items()
    png = base64.b64decode(data)
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and struct.unpack(">II", png[16:24]) == (320, 200)
    assert one["text"] == f"a PNG of 320 × 200 pixels: {name}"
    marked = operations.answer({**request, "code": f'depict("{ASPIRIN}", 320, 200, "C(=O)[OH]")'})
    assert list(marked["files"]) != [name]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("formula(C1CC)", "formula: smiles: 'C1CC' is no valid SMILES: ring 1 is not closed"),
        ('formula("CC(C")', "formula: smiles: 'CC(C' is no valid SMILES: 1 ( but 0 ) (branches)"),
        ("formula(benzene)", "formula: smiles: 'benzene' is no valid SMILES: names are not understood, write the structure"),
        ("formula(CQ)", "formula: smiles: 'CQ' is no valid SMILES (brackets, ring numbers or symbols are wrong)"),
        (
            'formula("CC(C)(C)(C)C")',
            "formula: smiles: 'CC(C)(C)(C)C' is no possible molecule: "
            "Explicit valence for atom # 1 C, 5, is greater than permitted",
        ),
        ('formula("")', 'formula: smiles: a SMILES is expected, as in "CCO"'),
        ('atoms("CCO", "Xx")', "ValueError: there is no element 'Xx'"),
        ('substructure_count("CCO", "[OH")', "substructure_count: pattern: '[OH' is no valid SMARTS pattern"),
        ("formulas(C)", "there is no operation 'formulas'; did you mean formula?"),
        ("descriptor(C, BalabanK)", "ValueError: there is no descriptor 'BalabanK'; near ones: BalabanJ"),
        ("hybridization(CC, 2)", "ValueError: there is no atom 2: they go from 0 to 1"),
        ("depict(C, 10)", "depict: width: Input should be greater than or equal to 50"),
        ("formula_weight(Ca(OH2)", "line 1: formula_weight: a bracket is not closed"),
        ('formula_weight("Xy2")', "ValueError: there is no element 'Xy'"),
        ("react(C>>C, C, C)", "ValueError: the reaction has 1 reactants, and 2 are given"),
        ('react("CC", "C")', "react: reaction: 'CC' is no reaction SMARTS, as in [C:1](=[O:2])O.[N:3]>>[C:1](=[O:2])[N:3]"),
        ("similarity(C, C, ecfp)", "similarity: fingerprint: Input should be 'morgan', 'rdkit', 'atompair', 'torsion' or 'maccs'"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_what_is_wrong(code: str, error: str) -> None:
    text, got = answer(code)
    assert got is not None and got.startswith(error)
    assert text.startswith("error: ")


def test_every_operation_has_an_example_that_works_and_a_line_of_help() -> None:
    for operation in operations:
        assert operation.help.endswith(".") and answer(operation.example)[1] is None
