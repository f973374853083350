"""Random graphs, graphs from files, their layers and their properties: the plans of graph-wired networks."""

from hyperprune.graphs.families import FAMILIES, Family, GraphPlan, family
from hyperprune.graphs.layers import MAX_NODES, LayeredGraph, layered
from hyperprune.graphs.properties import FEATURES, TRUE_SINKS, properties
from hyperprune.graphs.reading import read_graphml

__all__ = [
    "FAMILIES",
    "FEATURES",
    "MAX_NODES",
    "TRUE_SINKS",
    "Family",
    "GraphPlan",
    "LayeredGraph",
    "family",
    "layered",
    "properties",
    "read_graphml",
]
