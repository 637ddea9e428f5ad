"""Reranking: scores of a slower judge for what a search has found."""

from functools import lru_cache

import numpy as np

from .._columns import is_missing_item


@lru_cache(maxsize=1)
def _load_cross_encoder(name):
    """Return the cross-encoder of a name or folder; the last one stays in memory."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(name)


def rerank_scores(rerank, queries, candidates, query_column, candidate_column):
    """Return a score for each pair of a query and a candidate.

    Parameters
    ----------
    rerank : str, CrossEncoder or callable
        The parameter of the retriever.

    queries, candidates : DataFrame of n_pairs rows
        Rows that belong together.

    query_column, candidate_column : str or None
        Columns whose items a cross-encoder compares.

    Returns
    -------
    scores : ndarray of shape (n_pairs,)
        Scores, higher for candidates that fit better.
    """
    if isinstance(rerank, str):
        rerank = _load_cross_encoder(rerank)
    if hasattr(rerank, "predict"):
        scores = _predict_pairs(rerank, queries, candidates, query_column, candidate_column)
    else:
        scores = rerank(queries, candidates)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(queries),) or np.isnan(scores).any():
        raise ValueError(
            f"rerank must return one score, and no NaN, for each of {len(queries)} pairs, got "
            f"{'NaN among them' if scores.shape == (len(queries),) else f'shape {scores.shape}'}."
        )
    return scores


def _predict_pairs(encoder, queries, candidates, query_column, candidate_column):
    """Return the scores of a cross-encoder; pairs of which one item is missing come last."""
    if query_column is None or candidate_column is None:
        raise ValueError(
            "A cross-encoder compares one item with one item: name one source and one target, of one column each, or "
            "pass a callable as rerank, which gets the rows."
        )
    pairs = list(zip(queries[query_column], candidates[candidate_column], strict=True))
    complete = [i for i, pair in enumerate(pairs) if not any(map(is_missing_item, pair))]
    scores = np.full(len(pairs), -np.inf)
    if complete:
        scores[complete] = np.ravel(encoder.predict([pairs[i] for i in complete], show_progress_bar=False))
    return scores
