"""Import this before anything is forked: RDKit is loaded, and every operation's path is taken once."""

from __future__ import annotations

from cort_rdkit.operations import operations

operations.warm()
