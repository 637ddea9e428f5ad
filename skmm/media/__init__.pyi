from ._columns import column_items as column_items, describe_item as describe_item
from ._image import check_background as check_background, load_image as load_image, parse_color as parse_color
from ._sound import load_audio as load_audio
from ._spectra import CONTRAST_LOWEST as CONTRAST_LOWEST, CONTRAST_OCTAVES as CONTRAST_OCTAVES, Course as Course
from ._video import sample_frames as sample_frames
from ._video_sound import load_sound as load_sound
