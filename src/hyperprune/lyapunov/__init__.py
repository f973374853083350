"""Lyapunov spectra of driven recurrent networks."""

from hyperprune.lyapunov.iteration import LyapunovIteration
from hyperprune.lyapunov.spectrum import lyapunov_spectrum

__all__ = ["LyapunovIteration", "lyapunov_spectrum"]
