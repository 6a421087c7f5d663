"""Walls around the processes that run a model's code. Each layer is detected, used where it is there, and reported.

They suit code that a model wrote for a calculation. They are not for hostile tenants: the kernel of the operating
system is shared, and so are processor and disk.
"""

from __future__ import annotations

from cort_python.isolation.confinement import Confinement
from cort_python.isolation.policy import LAYERS, REMEDY, WHAT, Layer, Limits, Policy, State
from cort_python.isolation.surroundings import leave, surround, through_bwrap

__all__ = [
    "LAYERS",
    "REMEDY",
    "WHAT",
    "Confinement",
    "Layer",
    "Limits",
    "Policy",
    "State",
    "leave",
    "surround",
    "through_bwrap",
]
