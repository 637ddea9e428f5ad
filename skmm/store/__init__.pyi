from ._code import library_version as library_version
from ._content import (
    content_digest as content_digest,
    content_key as content_key,
    holds_files as holds_files,
    text_digests as text_digests,
)
from ._describe import Unidentifiable as Unidentifiable, describe as describe
from ._files import FileDigests as FileDigests
from ._identity import (
    digest_of as digest_of,
    folder_digest as folder_digest,
    minor_version as minor_version,
    module_digest as module_digest,
)
from ._private_folder import adopt_folder as adopt_folder, private_folder as private_folder
from ._store import EmbeddingStore as EmbeddingStore, find_store as find_store
from ._view import KeptRows as KeptRows
