"""Linear algebra."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Lazy, Operations
from cort_sympy.expressions import Integer, Matrix, Symbol

sympy: Any = Lazy("sympy")
matrices = Operations()


@matrices.add("det([[1, 2, 3], [4, 5, 6], [7, 8, 10]])", "determinant")
def det(matrix: Matrix) -> Any:
    """The determinant."""
    return matrix.det()


@matrices.add("inverse([[2, 1], [5, 3]])", "inv")
def inverse(matrix: Matrix) -> Any:
    """The inverse, by rows."""
    return matrix.inv().tolist()


@matrices.add("multiply([[1, 2], [3, 4]], [[0, 1], [1, 0]])")
def multiply(*factors: Matrix) -> Any:
    """The matrices' product, by rows."""
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result.tolist()


@matrices.add("matrix_power([[1, 1], [1, 0]], 50)")
def matrix_power(matrix: Matrix, exponent: Integer) -> Any:
    """The matrix to that power, by rows."""
    return (matrix ** int(exponent)).tolist()


@matrices.add("transpose([[1, 2, 3], [4, 5, 6]])")
def transpose(matrix: Matrix) -> Any:
    """Rows and columns exchanged."""
    return matrix.T.tolist()


@matrices.add("trace([[1, 2], [3, 4]])")
def trace(matrix: Matrix) -> Any:
    """The sum of the diagonal."""
    return matrix.trace()


@matrices.add("rank([[1, 2], [2, 4]])")
def rank(matrix: Matrix) -> Any:
    """The rank."""
    return matrix.rank()


@matrices.add("rref([[1, 2, 3], [4, 5, 6]])")
def rref(matrix: Matrix) -> Any:
    """The reduced row echelon form, by rows."""
    return matrix.rref()[0].tolist()


@matrices.add("nullspace([[1, 2, 3], [4, 5, 6]])", "kernel")
def nullspace(matrix: Matrix) -> Any:
    """A basis of the vectors that the matrix takes to 0."""
    return [list(vector) for vector in matrix.nullspace()]


@matrices.add("linear_solve([[2, 1], [1, 3]], [3, 5])", "linsolve")
def linear_solve(matrix: Matrix, right: Matrix) -> Any:
    """All x with matrix * x = right; free parameters are named tau0, tau1 and so on."""
    solution, _ = matrix.gauss_jordan_solve(right)
    return list(solution)


@matrices.add("eigenvalues([[2, 1], [1, 2]])", "eigenvals")
def eigenvalues(matrix: Matrix) -> Any:
    """Each eigenvalue with its multiplicity."""
    return matrix.eigenvals()


@matrices.add("eigenvectors([[2, 1], [1, 2]])", "eigenvects")
def eigenvectors(matrix: Matrix) -> Any:
    """Each eigenvalue, its multiplicity and a basis of its eigenvectors."""
    return [(value, count, [list(v) for v in basis]) for value, count, basis in matrix.eigenvects()]


@matrices.add("charpoly([[2, 1], [1, 2]], t)", "characteristic_polynomial")
def charpoly(matrix: Matrix, variable: Symbol) -> Any:
    """The characteristic polynomial in the variable."""
    return matrix.charpoly(variable).as_expr()


@matrices.add("jordan([[5, 4], [-1, 1]])", "jordan_form")
def jordan(matrix: Matrix) -> Any:
    """The Jordan form, by rows."""
    return matrix.jordan_form(calc_transform=False).tolist()


@matrices.add("diagonalize([[4, 1], [2, 3]])")
def diagonalize(matrix: Matrix) -> Any:
    """P and the diagonal D with matrix = P*D*P**-1, by rows."""
    change, diagonal = matrix.diagonalize()
    return change.tolist(), diagonal.tolist()


@matrices.add("matrix_exp([[0, 1], [-1, 0]])")
def matrix_exp(matrix: Matrix) -> Any:
    """The exponential, by rows."""
    return sympy.simplify(matrix.exp()).tolist()


@matrices.add("adjugate([[1, 2], [3, 4]])")
def adjugate(matrix: Matrix) -> Any:
    """The adjugate, by rows."""
    return matrix.adjugate().tolist()


@matrices.add("dot([1, 2, 3], [4, 5, 6])")
def dot(first: Matrix, second: Matrix) -> Any:
    """The inner product of two vectors."""
    return first.dot(second)


@matrices.add("cross([1, 0, 0], [0, 1, 0])")
def cross(first: Matrix, second: Matrix) -> Any:
    """The vector product."""
    return list(first.cross(second))


@matrices.add("norm([3, 4])")
def norm(vector: Matrix) -> Any:
    """The length of a vector."""
    return vector.norm()
