"""Lyapunov spectra as plain numbers: the record, its derived figures, and distances between spectra.

numpy only, so that reports, searches and the command line can read spectra without loading torch.
"""

from hyperprune.spectra.distance import FLOOR, compared_vector, pca_trajectories, resized, spectrum_distance
from hyperprune.spectra.record import LyapunovSpectrum

__all__ = ["FLOOR", "LyapunovSpectrum", "compared_vector", "pca_trajectories", "resized", "spectrum_distance"]
