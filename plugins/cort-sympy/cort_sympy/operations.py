"""SymPy's operations, as a model calls them: all of this folder's groups together."""

from __future__ import annotations

from cort_python.operations import Operations
from cort_sympy.algebra import algebra
from cort_sympy.arithmetic import arithmetic
from cort_sympy.calculus import calculus
from cort_sympy.discrete import discrete
from cort_sympy.geometry import geometry
from cort_sympy.matrices import matrices

operations = Operations(algebra, calculus, arithmetic, discrete, matrices, geometry)
