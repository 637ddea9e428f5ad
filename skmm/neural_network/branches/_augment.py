"""Random changes of items in training, drawn on the CPU from the generator of the fit.

Each function takes a batch's tensors, as the branch prepares them, and returns changed ones; ``names`` are the changes.
"""

import torch
from torch.nn import functional

# Sides of a crop as shares of the image's, and factors on brightness, contrast and saturation.
_SMALLEST_CROP, _COLOR = 0.8, 0.2

# Standard deviation of noise as a share of that of the recording, shift and masked stretch as shares of its length, and
# masked bands as a share of all: the largest of each.
_NOISE, _SHIFT, _STRETCH, _BANDS = 0.2, 0.1, 0.1, 0.2

# Weights of red, green and blue in grey.
_GREY = (0.299, 0.587, 0.114)


def _uniform(n, generator, like, low=0.0, high=1.0):
    """Return random numbers, one for each row, on the device of a tensor."""
    return torch.empty(n).uniform_(low, high, generator=generator).to(like.device)


def change_images(tensors, generator, names):
    """Crop, flip and recolour images (n, 3, height, width) of dtype uint8."""
    (images,) = tensors
    n, values = len(images), images.float()
    if "crop" in names or "flip" in names:
        scales, centres = values.new_ones(n, 2), values.new_zeros(n, 2)
        if "crop" in names:
            scales = torch.stack([_uniform(n, generator, values, _SMALLEST_CROP) for _ in range(2)], dim=1)
            places = torch.stack([_uniform(n, generator, values, -1) for _ in range(2)], dim=1)
            centres = places * (1 - scales)
        if "flip" in names:
            scales = scales * torch.stack([1 - 2 * _uniform(n, generator, values).round(), scales.new_ones(n)], dim=1)
        maps = torch.cat([torch.diag_embed(scales), centres[:, :, None]], dim=2)
        grid = functional.affine_grid(maps, values.shape, align_corners=False)
        values = functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
    if "color" in names:
        grey = values.new_tensor(_GREY)[:, None, None]
        factors = torch.stack([_uniform(n, generator, values, 1 - _COLOR, 1 + _COLOR) for _ in range(3)])
        brightness, contrast, saturation = factors[:, :, None, None, None]
        values = values * brightness
        mean = values.mean(dim=(1, 2, 3), keepdim=True)
        values = mean + contrast * (values - mean)
        luminance = (values * grey).sum(dim=1, keepdim=True)
        values = luminance + saturation * (values - luminance)
    return (values.round().clamp(0, 255).to(images.dtype),)


def change_frames(tensors, generator, names):
    """Change frames (n, n_frames, n_mels), whose lowest value is -1, and leave their numbers (n,) as they are."""
    frames, lengths = tensors
    frames = frames[:, : int(lengths.max())]
    return _change_signals(frames, lengths, generator, names, torch.full_like(frames[:, :1, :1], -1)), lengths


def change_windows(tensors, generator, names):
    """Change waveforms (n, n_windows, n_times), or spectrograms, whose longer axis is time; not masks of padding."""
    extents, *inputs = tensors
    results = []
    for values in inputs:
        if not values.is_floating_point():
            results.append(values)
            continue
        # One row for each window; a waveform has one band.
        rows = values.flatten(0, 1)
        rows = rows.unsqueeze(-1) if rows.ndim == 2 else rows
        is_transposed = rows.shape[-1] > rows.shape[-2]
        rows = rows.transpose(-1, -2) if is_transposed else rows
        shape, rows = rows.shape, rows.reshape(len(rows), -1, rows.shape[-1])
        n_times, n_padded = extents[:, :, :2].flatten(0, 1).double().T
        lengths = (rows.shape[1] * n_times / n_padded.clamp(min=1)).round().long()
        if values.ndim == 3:
            lengths = n_times.long()
        silence = rows.mean(dim=(1, 2), keepdim=True) if values.ndim > 3 else torch.zeros_like(rows[:, :1, :1])
        rows = _change_signals(rows, lengths, generator, names, silence).reshape(shape)
        results.append((rows.transpose(-1, -2) if is_transposed else rows).reshape(values.shape))
    return (extents, *results)


def _change_signals(rows, lengths, generator, names, silence):
    """Change signals (n, n_steps, n_bands) of some lengths; ``silence`` (n, 1, 1) is the value of what is masked."""
    n, steps = len(rows), torch.arange(rows.shape[1], device=rows.device)
    inside = (steps < lengths[:, None])[:, :, None]
    if "shift" in names:
        shifts = (_uniform(n, generator, rows, -_SHIFT, _SHIFT) * lengths).round().long()
        sources = (steps - shifts[:, None]) % lengths.clamp(min=1)[:, None]
        rows = torch.where(inside, rows.gather(1, sources[:, :, None].expand_as(rows)), rows)
    if "noise" in names:
        noise = torch.randn(rows.shape, generator=generator).to(rows)
        count = (lengths * rows.shape[2]).clamp(min=1)[:, None, None]
        mean = (rows * inside).sum(dim=(1, 2), keepdim=True) / count
        scale = ((rows - mean).square() * inside).sum(dim=(1, 2), keepdim=True).div(count).sqrt()
        rows = rows + noise * scale * _uniform(n, generator, rows, 0, _NOISE)[:, None, None] * inside
    if "mask" in names:
        masked = _stretch(n, generator, rows, lengths, _STRETCH)[:, :, None]
        if rows.shape[2] > 1:
            masked = masked | _stretch(n, generator, rows.transpose(1, 2), rows.shape[2], _BANDS)[:, None, :]
        rows = torch.where(masked & inside, silence.to(rows.dtype), rows)
    return rows


def _stretch(n, generator, rows, lengths, share):
    """Return a mask (n, n_steps) of a random stretch of each row, of a random length up to a share of its length."""
    sizes = _uniform(n, generator, rows, 0, share) * lengths
    starts = _uniform(n, generator, rows) * (lengths - sizes)
    steps = torch.arange(rows.shape[1], device=rows.device) + 0.5
    return (steps >= starts[:, None]) & (steps < (starts + sizes)[:, None])


def drop_tokens(tensors, generator, names, share, number, special):
    """Replace a share of the tokens of texts by the token of a number, but not special tokens."""
    mask, tokens, *others = tensors
    uniform = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    fixed = torch.isin(tokens, torch.tensor(special, dtype=tokens.dtype, device=tokens.device))
    return mask, tokens.masked_fill((uniform < share) & ~fixed & (mask > 0), number), *others
