"""The prefix trie that beam search walks. The orchestrator builds it (src/sid/trie.ts);
the worker checks it and uses it.

Nodes are numbered breadth first: node 0 is the root, edge e leads to node e + 1, the edges of one node are contiguous.
Array fields end in their length: N nodes, N1 = N + 1, E = N - 1 edges, I items.
"""

from __future__ import annotations

import numpy as np

from gr2_worker.errors import InvalidRequest
from gr2_worker.types import Int64s, Trie


def checked_trie(
    edge_starts_N1: Int64s, edge_tokens_E: Int64s, row_starts_N: Int64s, row_ends_N: Int64s, rows_I: Int64s
) -> Trie:
    """Returns the trie. Raises InvalidRequest that says what is wrong if it is not one."""

    def require(holds: object, what: str) -> None:
        if not holds:
            raise InvalidRequest(f"this is not a trie: {what}")

    nodes, items = len(row_starts_N), len(rows_I)
    require(items > 0, "it has no items")
    require(len(row_ends_N) == nodes and len(edge_starts_N1) == nodes + 1, "its arrays do not fit each other")
    counts = np.diff(edge_starts_N1)
    require(edge_starts_N1[0] == 0 and (counts >= 0).all(), "edge_starts is not ascending from 0")
    require(
        edge_starts_N1[-1] == len(edge_tokens_E) == nodes - 1, "it does not have one edge for each node except the root"
    )
    parent_E = np.repeat(np.arange(nodes), counts)
    child_E = np.arange(1, nodes)
    require((parent_E < child_E).all(), "a node comes before its parent")
    siblings = np.flatnonzero(parent_E[1:] == parent_E[:-1])
    require((edge_tokens_E[siblings + 1] > edge_tokens_E[siblings]).all(), "edge_tokens is not ascending within a node")
    require(row_starts_N[0] == 0 and row_ends_N[0] == items, "the root does not cover every item")
    # The ranges of a node's children are adjacent, from its own start to its own end, so they partition it.
    inner = np.flatnonzero(counts)
    first, last = edge_starts_N1[inner] + 1, edge_starts_N1[inner + 1]
    fits = (row_starts_N[first] == row_starts_N[inner]).all() and (row_ends_N[last] == row_ends_N[inner]).all()
    fits = fits and (row_starts_N[child_E[siblings + 1]] == row_ends_N[child_E[siblings]]).all()
    require(fits and (row_ends_N > row_starts_N).all(), "the items under a node differ from those under its children")
    leaves = counts == 0
    require((row_ends_N - row_starts_N)[leaves].max() == 1, "two items have the same sequence")
    in_range = rows_I.min() >= 0 and rows_I.max() < items
    require(in_range and (np.bincount(rows_I, minlength=items) == 1).all(), "rows does not name every item once")
    levels, low, high = 0, 0, 1
    while True:  # nodes of one depth are contiguous
        low, high = int(edge_starts_N1[low]) + 1, int(edge_starts_N1[high]) + 1
        if low == high:
            break
        levels += 1
    require(levels > 0, "its only sequence is empty")
    return Trie(edge_starts_N1, edge_tokens_E, row_starts_N, row_ends_N, rows_I, levels)
