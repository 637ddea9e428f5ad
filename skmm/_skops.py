"""The types that a file of a fitted estimator may hold, for formats that load nothing unless told to."""

import importlib
import sys

# Rooms with public estimators. Their public names bring in the modules whose classes fitted estimators hold.
_ROOMS = ("encoders", "ensemble", "fusion", "model_selection", "neural_network", "retrieval")

# Not an estimator; its module imports torch.
_NOT_STORED = {"FusionLayer"}

# Other types of skmm in fitted attributes.
_HELPERS = ["skmm._composition.NumberColumns"]

# Types of other packages in fitted attributes that skops does not trust by itself.
_FOREIGN_TYPES = [
    "numpy.dtype",
    "scipy.sparse._csr.csr_array",
    # Members of the automatic estimators.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    # Selectors of columns in skrub's table vectorizer, which makes the tables of modalities="auto".
    "skrub._dataframe._common.is_any_date",
    "skrub._dataframe._common.is_categorical",
    "skrub._dataframe._common.is_numeric",
    "skrub._table_vectorizer._created_by_predicate",
    "skrub.selectors._selectors._cardinality_below",
]


def get_trusted_types() -> list[str]:
    """Return the types that a file of a fitted skmm estimator may hold.

    Returns
    -------
    trusted_types : list of str
        Dotted paths, as ``skops.io.load`` takes them: skmm's, skrub's and a few of scikit-learn's that the automatic
        estimators need. Types of other packages, such as those of your own transformers and classifiers, are not among
        these: ``skops.io.get_untrusted_types`` lists them. skops stores neither tensors nor an open
        :class:`EmbeddingStore`: use pickle for an estimator with a module of yours, of which skops says
        "Cannot directly construct TensorBase", and pass the store's path.

    Examples
    --------
    >>> import skops.io
    >>> from sklearn.datasets import load_iris
    >>> from skmm import ModalityFuser, get_trusted_types
    >>> X, y = load_iris(return_X_y=True)
    >>> fuser = ModalityFuser([("sepal", "passthrough", [0, 1]), ("petal", "passthrough", [2, 3])]).fit(X)
    >>> loaded = skops.io.loads(skops.io.dumps(fuser), trusted=get_trusted_types())
    >>> loaded.transform(X).shape
    (150, 4)
    """
    importlib.import_module("skrub")
    types = {*_FOREIGN_TYPES, *_HELPERS, *_classes_below("skrub")}
    for room in _ROOMS:
        package = importlib.import_module(f"{__package__}.{room}")
        for name in set(package.__all__) - _NOT_STORED:
            getattr(package, name)
        for name in ("ProcessorRecipe", "Recipe") if room == "encoders" else ():
            getattr(importlib.import_module(f"{package.__name__}.networks"), name)
        types |= _classes_below(package.__name__)
    return sorted(types)


def _classes_below(package):
    """Return the paths of the classes that the imported modules of a package define, modules of torch excepted."""
    return {
        f"{name}.{value.__name__}"
        for name, module in list(sys.modules.items())
        if name.startswith(f"{package}.")
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == name and not hasattr(value, "forward")
    }
