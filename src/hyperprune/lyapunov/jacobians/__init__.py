"""Jacobians of recurrent layers: analytic for the cells that are known, by autodiff for any other step."""

from hyperprune.lyapunov.jacobians.base import Carry, Layer
from hyperprune.lyapunov.jacobians.stack import Stack, module_behind, stack_of

__all__ = ["Carry", "Layer", "Stack", "module_behind", "stack_of"]
