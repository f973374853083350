"""Sparse training: exact masks, methods that move them, and the loop that keeps dead weights dead."""

from hyperprune.sparsity import methods
from hyperprune.sparsity.dynamic import DynamicSparse
from hyperprune.sparsity.method import Method
from hyperprune.sparsity.training import SparseTraining

__all__ = ["DynamicSparse", "Method", "SparseTraining", "methods"]
