from ._index import ApproximateIndex as ApproximateIndex, ExactIndex as ExactIndex
from ._retriever import CrossModalRetriever as CrossModalRetriever
