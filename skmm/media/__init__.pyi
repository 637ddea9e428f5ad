from ._files import locate_file as locate_file
from ._image import check_background as check_background, load_image as load_image, parse_color as parse_color
from ._sound import load_audio as load_audio, load_sound_track as load_sound_track
from ._spectra import (
    LOWEST_CONTRAST as LOWEST_CONTRAST,
    SpectralFeatures as SpectralFeatures,
    contrast_octaves as contrast_octaves,
)
from ._video import sample_frames as sample_frames
