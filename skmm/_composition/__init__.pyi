from ._base import (
    ModalityComposition as ModalityComposition,
    check_modalities as check_modalities,
    modality_positions as modality_positions,
    named as named,
)
from ._members import (
    as_transformer as as_transformer,
    fit_transform as fit_transform,
    fit_transform_modality as fit_transform_modality,
    transform_modality as transform_modality,
)
from ._pipelines import (
    consumed as consumed,
    join_lenient as join_lenient,
    member_tags as member_tags,
    part_steps as part_steps,
    propagated as propagated,
    split_lenient as split_lenient,
    step_of as step_of,
)
from ._rows import PresentRows as PresentRows
