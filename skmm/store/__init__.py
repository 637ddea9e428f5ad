"""The embedding store: what one encoder computed, no other computes again."""

from ._store import EmbeddingStore

__all__ = ["EmbeddingStore"]
