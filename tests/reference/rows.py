"""Unit rows, and what a shared projection leaves out."""

import numpy as np


def unit(rows):
    rows = rows.astype(np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def specific(pooled, projection):
    """The unit part of `pooled` [n, hidden] outside of the rows of `projection` [dim, hidden]."""
    weights = projection.detach().double().numpy()
    if np.linalg.matrix_rank(weights) == weights.shape[1]:
        return None
    pooled = pooled.astype(np.float64)
    return unit(pooled - pooled @ np.linalg.pinv(weights) @ weights)
