from ._index import ApproximateIndex as ApproximateIndex, ExactIndex as ExactIndex
from ._retriever import CrossModalRetriever as CrossModalRetriever
from ._zero_shot import ZeroShotClassifier as ZeroShotClassifier
