from ._content import (
    ItemDigests as ItemDigests,
    content_key as content_key,
    digest_of as digest_of,
    file_digests as file_digests,
    file_signature as file_signature,
    minor_versions as minor_versions,
    public_name as public_name,
)
from ._identity import Unidentifiable as Unidentifiable, module_digest as module_digest
from ._private_folder import adopt_folder as adopt_folder, private_folder as private_folder
from ._store import EmbeddingStore as EmbeddingStore, find_store as find_store
