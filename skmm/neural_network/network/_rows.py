"""Rows as tensors, rows to validate on, and passes through a network without gradients."""

from contextlib import closing, nullcontext

import numpy as np

from ..._threads import in_order
from ..._torch import batch_limit, run_with_backoff

# Rows per forward pass where no gradient is needed, and where their items are read for it.
_ROWS_AT_ONCE, _ROWS_READ_AT_ONCE = 1024, 128

# Batches whose items are read while the network works on another one, at most.
_BATCHES_AHEAD = 2


class Rows:
    """Tensors with one row per sample.

    Parameters
    ----------
    inputs : list of tuple of Tensor
        Input of the network for each modality; for one with a reader, the positions of the rows.

    mask : Tensor of shape (n_samples, n_modalities) or None
        True where a modality is present; None if nothing is missing.

    targets : Tensor, tuple of Tensor or None, default=None
        What the criterion takes.

    weights : Tensor of shape (n_samples,) or None, default=None
        Weights of the rows, of mean 1; None for equal weights.

    vectors : list of (Tensor or None) or None, default=None
        For pretrained branches, the vectors of the encoder.

    readers : list of (callable or None) or None, default=None
        For modalities whose items are read batch by batch, the function from positions to the input of the network;
        None if all inputs are in memory.
    """

    def __init__(self, inputs, mask, targets=None, weights=None, vectors=None, readers=None):
        self.inputs = inputs
        self.mask = mask
        self.targets = targets
        self.weights = weights
        self.vectors = vectors
        self.readers = readers

    def __len__(self):
        return len(self.inputs[0][0])

    def map(self, function):
        """Return the rows with a function applied to every tensor."""
        fields = self.inputs, self.mask, self.targets, self.weights, self.vectors
        return Rows(*(_map(function, field) for field in fields), self.readers)

    def take(self, indices):
        """Return the rows at some positions."""
        return self.map(lambda tensor: tensor.index_select(0, indices))

    def slice(self, start, stop):
        """Return neighbouring rows, without a copy."""
        return self.map(lambda tensor: tensor[start:stop])

    def modality(self, m):
        """Return the rows with the input of one modality alone."""
        readers = None if self.readers is None or self.readers[m] is None else [self.readers[m]]
        return Rows([self.inputs[m]], None, readers=readers)

    def with_vectors(self):
        """Return the rows with the vectors of the encoder in place of the input of pretrained branches."""
        inputs, readers = list(self.inputs), None if self.readers is None else list(self.readers)
        for m, vectors in enumerate(self.vectors):
            if vectors is not None:
                inputs[m] = (vectors,)
                if readers is not None:
                    readers[m] = None
        return Rows(inputs, self.mask, self.targets, self.weights, readers=readers)

    def read(self):
        """Return the rows with all inputs in memory."""
        if self.readers is None:
            return self
        inputs = [
            tensors if reader is None else reader(tensors[0])
            for tensors, reader in zip(self.inputs, self.readers, strict=True)
        ]
        return Rows(inputs, self.mask, self.targets, self.weights, self.vectors)

    @property
    def nbytes(self):
        """Bytes of the inputs."""
        return sum(tensor.nbytes for tensors in self.inputs for tensor in tensors)


def read_ahead(rows, batches):
    """Yield batches of rows with their inputs in memory, read by a thread while the caller works on those before."""
    # One thread for the batches; the branches that decode files do so in several.
    n_threads = 0 if rows.readers is None or not any(rows.readers) else 1
    with closing(in_order(Rows.read, batches, n_threads, _BATCHES_AHEAD, lambda batch: batch.nbytes)) as results:
        for _, batch in results:
            yield batch


def slices(rows):
    """Yield the rows in batches for passes without gradients, with their inputs in memory."""
    size = _ROWS_AT_ONCE if rows.readers is None else _ROWS_READ_AT_ONCE
    return read_ahead(rows, (rows.slice(start, start + size) for start in range(0, len(rows), size)))


def _map(function, tensors):
    """Apply a function to all tensors in nested lists and tuples; None stays None."""
    if tensors is None:
        return None
    if isinstance(tensors, (list, tuple)):
        return type(tensors)(_map(function, tensor) for tensor in tensors)
    return function(tensors)


def split_validation(n_samples, strata, fraction, random_state, owner, groups=None):
    """Return the positions of rows drawn to learn from and of those to validate on; training has all classes.

    ``fraction`` is the share of rows to validate on. ``strata``, the classes of rows or None, keep their shares, unless
    there are ``groups``, which stay whole. ``owner`` is the name of the estimator, for the error message.
    """
    if groups is not None:
        is_validation = _draw_groups(groups, strata, fraction * n_samples, random_state)
        unit = f"{len(np.unique(groups))} groups"
    else:
        is_validation = _draw_rows(n_samples, strata, fraction, random_state)
        unit = f"{n_samples} rows"
    if not is_validation.any():
        raise ValueError(
            f"{owner}: validation_fraction={fraction} of {unit} leaves no row to validate on; change it, pass X_val "
            "and y_val, or use early_stopping=False."
        )
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def _draw_rows(n_samples, strata, fraction, random_state):
    """Return a mask of validation rows that keeps the shares of the classes."""
    order = random_state.permutation(n_samples)
    is_first = np.zeros(n_samples, dtype=bool)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
        is_first[0] = True
        is_first[1:] = strata[order][1:] != strata[order][:-1]
    # Evenly spread over the rows in order of classes, which keeps their shares; the first row of each stays in
    # training.
    steps = np.floor((np.arange(n_samples) + random_state.uniform()) * fraction)
    is_validation = np.zeros(n_samples, dtype=bool)
    is_validation[order] = (np.diff(steps, prepend=0) > 0) & ~is_first
    return is_validation


def _draw_groups(groups, strata, n_validation, random_state):
    """Return a mask of whole validation groups, of about ``n_validation`` rows in all."""
    codes = np.unique(groups, return_inverse=True)[1].ravel()
    classes = np.zeros(len(codes), dtype=int) if strata is None else np.unique(strata, return_inverse=True)[1]
    # Rows of each class in each group.
    counts = np.zeros((codes.max() + 1, classes.max() + 1), dtype=int)
    np.add.at(counts, (codes, classes), 1)
    training, chosen = counts.sum(axis=0), []
    order = random_state.permutation(len(counts))
    for group in order:
        n_before = len(codes) - training.sum()
        # A group enters if that brings the number of rows closer to n_validation and leaves all classes in training.
        is_closer = abs(n_before + counts[group].sum() - n_validation) < abs(n_before - n_validation)
        if is_closer and (training > counts[group]).all():
            training = training - counts[group]
            chosen.append(group)
    if not chosen:
        # All groups are large: the smallest one that leaves all classes in training.
        possible = [group for group in order if (training > counts[group]).all()]
        chosen = sorted(possible, key=lambda group: counts[group].sum())[:1]
    return np.isin(codes, chosen)


def apply(network, rows, function, device, autocast=None):
    """Return the results of a function for batches of rows, an array of shape (n_samples, ...), without gradients.

    The function takes rows on the device, where the network is, and returns a tensor with one row each. ``autocast`` is
    the half precision to compute in, or None.
    """
    import torch

    def compute(batch):
        with precise(device, autocast):
            values = function(batch)
        return values.to(next(network.parameters()).dtype).cpu().numpy()

    with torch.inference_mode():
        return in_batches(network, rows, compute, device)


def in_batches(network, rows, function, device):
    """Apply a function that needs no gradients to batches of rows, smaller ones where memory runs out."""
    limit = batch_limit(network, device)
    results = []
    for batch in slices(rows):

        def compute(indices, batch=batch):
            return function(batch.slice(indices[0], indices[-1] + 1).map(lambda tensor: tensor.to(device)))

        results.append(run_with_backoff(compute, range(len(batch)), limit))
    return np.concatenate(results)


def precise(device, autocast):
    """Return a context that computes in half precision, or in the precision of the tensors if ``autocast`` is None."""
    import torch

    return nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast)
