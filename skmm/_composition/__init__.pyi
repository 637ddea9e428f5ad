from ._base import (
    ModalityComposition as ModalityComposition,
    check_modalities as check_modalities,
    modality_positions as modality_positions,
)
from ._members import (
    apply_stages as apply_stages,
    as_transformer as as_transformer,
    fit_stages as fit_stages,
    fit_transform as fit_transform,
    fit_transform_modality as fit_transform_modality,
    transform_modality as transform_modality,
)
from ._pipelines import (
    consumed as consumed,
    member_step as member_step,
    member_tags as member_tags,
    propagated as propagated,
)
from ._rows import PresentRows as PresentRows
