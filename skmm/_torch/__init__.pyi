from ._batches import batch_limit as batch_limit, run_with_backoff as run_with_backoff
from ._devices import (
    expected_place as expected_place,
    place as place,
    resolve_device as resolve_device,
    resolve_precision as resolve_precision,
)
from ._memory import (
    free_cached_memory as free_cached_memory,
    is_out_of_memory as is_out_of_memory,
    size_that_fits as size_that_fits,
)
from ._modules import place_of as place_of, ready_module as ready_module
from ._registry import clear_models as clear_models, get_model as get_model, move_model as move_model
from ._settings import numeric_settings as numeric_settings
from ._threads import (
    available_cpus as available_cpus,
    check_not_forked as check_not_forked,
    divided_threads as divided_threads,
    note_run as note_run,
)
