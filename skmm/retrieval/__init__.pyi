from ._zero_shot import ZeroShotClassifier as ZeroShotClassifier
