from ._batches import (
    batch_limit as batch_limit,
    free_cached_memory as free_cached_memory,
    is_out_of_memory as is_out_of_memory,
    run_with_backoff as run_with_backoff,
)
from ._devices import (
    expected_place as expected_place,
    numeric_settings as numeric_settings,
    place as place,
    place_of as place_of,
    resolve_device as resolve_device,
    resolve_precision as resolve_precision,
)
from ._registry import clear_models as clear_models, get_model as get_model, rename_model as rename_model
from ._threads import (
    available_cpus as available_cpus,
    check_not_forked as check_not_forked,
    divided_threads as divided_threads,
    note_run as note_run,
)
