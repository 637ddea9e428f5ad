"""Training in several processes, as torch's launcher starts them: each computes the gradients of its share of a batch.

The gradients are summed here, not by ``DistributedDataParallel``: the loss is a mean over the rows of the whole batch,
whose shares differ by a row, weights of rows count in it, and branches have no gradient where they are frozen or all
rows lack their modality.
"""


class Processes:
    """The processes that train one network together; a single one where ``distributed`` is False.

    Parameters
    ----------
    distributed : bool
        Whether there are several.
    """

    def __init__(self, distributed):
        self.rank, self.n = 0, 1
        if not distributed:
            return
        from torch import distributed as group

        if not (group.is_available() and group.is_initialized()):
            raise RuntimeError(
                "distributed=True needs the processes of torch's launcher: start the script by torchrun, and call "
                "torch.distributed.init_process_group() in it before fit."
            )
        self.rank, self.n = group.get_rank(), group.get_world_size()

    def share(self, rows):
        """Return this process's share of rows, which all processes have in the same order."""
        if self.n == 1:
            return rows
        return rows.slice(len(rows) * self.rank // self.n, len(rows) * (self.rank + 1) // self.n)

    def agree(self, value):
        """Return the first process's value of a plain object."""
        if self.n > 1:
            from torch import distributed as group

            values = [value]
            group.broadcast_object_list(values, src=0)
            return values[0]
        return value

    def copy_first(self, tensors):
        """Set tensors, in place, to those of the first process."""
        if self.n > 1:
            from torch import distributed as group

            for tensor in tensors:
                group.broadcast(tensor, src=0)

    def add(self, tensor):
        """Set a tensor, in place, to the sum of those of all processes, and return it."""
        if self.n > 1:
            from torch import distributed as group

            group.all_reduce(tensor)
        return tensor

    def add_number(self, value, device):
        """Return the sum of a number over all processes."""
        if self.n == 1:
            return value
        import torch

        return self.add(torch.tensor(value, dtype=torch.float64, device=device)).item()

    def add_gradients(self, weights):
        """Set the gradients of weights to their sums; a weight without one in all processes stays without."""
        import torch

        weights = [w for w in weights if w.requires_grad]
        counts = self.add(torch.tensor([w.grad is not None for w in weights], device=weights[0].device).float())
        weights = [w for w, count in zip(weights, counts.tolist(), strict=True) if count]
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        # At once, since each exchange has to be waited for.
        sums = self.add(torch.cat([gradient.ravel() for gradient in gradients]))
        for w, values in zip(weights, sums.split([w.numel() for w in weights]), strict=True):
            w.grad = values.view_as(w).clone()
