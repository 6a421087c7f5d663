"""Plane geometry. A point is [x, y]; coordinates are exact."""

from __future__ import annotations

from typing import Any

from cort_python.operations import Lazy, Operations
from cort_sympy.expressions import Items, Point

sympy: Any = Lazy("sympy")
geometry = Operations()


def triangle(a: Any, b: Any, c: Any) -> Any:
    shape = sympy.Triangle(a, b, c)
    if not isinstance(shape, sympy.Triangle):
        raise ValueError("the three points are on one line")
    return shape


def circle(shape: Any) -> str:
    """Centre and radius."""
    return f"centre {list(shape.center)}, radius {sympy.simplify(shape.radius)}"


@geometry.add("distance([0, 0], [3, 4])")
def distance(a: Point, b: Point) -> Any:
    """The distance between two points."""
    return a.distance(b)


@geometry.add("polygon_area([[0, 0], [4, 0], [4, 3]])", "area")
def polygon_area(points: Items) -> Any:
    """The area of the polygon with these corners, in order around it."""
    corners = [(p[0], p[1]) for p in points]
    following = corners[1:] + corners[:1]
    twice = sum(x * v - u * y for (x, y), (u, v) in zip(corners, following, strict=True))
    return sympy.Abs(sympy.simplify(twice)) / 2


@geometry.add("angle([1, 0], [0, 0], [1, 1])")
def angle(a: Point, corner: Point, b: Point) -> Any:
    """The angle at the corner, in radians."""
    u, v = a - corner, b - corner
    return sympy.acos(sympy.simplify(u.dot(v) / (u.distance((0, 0)) * v.distance((0, 0)))))


@geometry.add("circumcircle([0, 0], [4, 0], [0, 3])")
def circumcircle(a: Point, b: Point, c: Point) -> Any:
    """Centre and radius of the circle through three points."""
    return circle(triangle(a, b, c).circumcircle)


@geometry.add("incircle([0, 0], [4, 0], [0, 3])")
def incircle(a: Point, b: Point, c: Point) -> Any:
    """Centre and radius of the circle that touches the triangle's sides."""
    return circle(triangle(a, b, c).incircle)


@geometry.add("orthocenter([0, 0], [4, 0], [1, 3])")
def orthocenter(a: Point, b: Point, c: Point) -> Any:
    """Where the triangle's altitudes meet."""
    return list(triangle(a, b, c).orthocenter)


@geometry.add("centroid([0, 0], [4, 0], [1, 3])")
def centroid(*points: Point) -> Any:
    """The mean of the points."""
    return [sympy.simplify(sum(p[axis] for p in points) / len(points)) for axis in range(2)]


@geometry.add("line_intersection([0, 0], [2, 2], [0, 2], [2, 0])")
def line_intersection(a: Point, b: Point, c: Point, d: Point) -> Any:
    """Where the line through a and b meets that through c and d."""
    met = sympy.Line(a, b).intersection(sympy.Line(c, d))
    if not met:
        return "the lines are parallel"
    return list(met[0]) if isinstance(met[0], sympy.Point) else "the lines are the same"


@geometry.add("foot([3, 4], [0, 0], [1, 0])", "projection")
def foot(point: Point, a: Point, b: Point) -> Any:
    """The foot of the perpendicular from the point to the line through a and b."""
    return list(sympy.Line(a, b).projection(point))
