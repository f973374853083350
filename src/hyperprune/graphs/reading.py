"""Graphs from GraphML files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from hyperprune.errors import InputError

if TYPE_CHECKING:
    import networkx


def read_graphml(path: str | Path) -> networkx.Graph:
    """The graph of a GraphML file; its nodes keep the file's order, and edges their directions.

    Raises:
        InputError: no such file, not XML, or not GraphML; the message names the file and, where the text
            is broken, the line.
    """
    import networkx as nx

    path = Path(path)
    try:
        return nx.read_graphml(path)
    except OSError as error:
        raise InputError(f"a graph must be a readable GraphML file, got {path}: {error.strerror}") from error
    except ParseError as error:
        line, column = error.position
        raise InputError(
            f"{path}, line {line}, column {column}: GraphML must be whole XML: {error}"
        ) from error
    except (nx.NetworkXError, KeyError, ValueError) as error:
        raise InputError(f"{path} must hold a graph in GraphML, and does not: {error}") from error
