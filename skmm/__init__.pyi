from . import (
    datasets as datasets,
    encoders as encoders,
    ensemble as ensemble,
    exceptions as exceptions,
    fusion as fusion,
    inspection as inspection,
    metrics as metrics,
    model_selection as model_selection,
    neural_network as neural_network,
    retrieval as retrieval,
    store as store,
)
from ._bundle import load_bundle as load_bundle, save_bundle as save_bundle
from ._skops import get_trusted_types as get_trusted_types
from .encoders import (
    AudioDescriptor as AudioDescriptor,
    AudioEncoder as AudioEncoder,
    ImageDescriptor as ImageDescriptor,
    ImageEncoder as ImageEncoder,
    TextEncoder as TextEncoder,
    TunedEncoder as TunedEncoder,
    VideoAudio as VideoAudio,
    VideoDescriptor as VideoDescriptor,
    VideoEncoder as VideoEncoder,
    infer_modalities as infer_modalities,
)
from .ensemble import (
    ModalityCascadeClassifier as ModalityCascadeClassifier,
    ModalityStackingClassifier as ModalityStackingClassifier,
    ModalityStackingRegressor as ModalityStackingRegressor,
    ModalityVotingClassifier as ModalityVotingClassifier,
    ModalityVotingRegressor as ModalityVotingRegressor,
)
from .fusion import (
    AnchorFusion as AnchorFusion,
    AverageFusion as AverageFusion,
    CCAFusion as CCAFusion,
    ConcatFusion as ConcatFusion,
    ContrastiveFusion as ContrastiveFusion,
    DomainScaler as DomainScaler,
    KernelCCAFusion as KernelCCAFusion,
    KernelFusion as KernelFusion,
    LDAFusion as LDAFusion,
    ModalityFuser as ModalityFuser,
    ModalityImputer as ModalityImputer,
    PCAFusion as PCAFusion,
    PLSFusion as PLSFusion,
    ProductFusion as ProductFusion,
)
from .model_selection import (
    AutoMultimodalClassifier as AutoMultimodalClassifier,
    AutoMultimodalRegressor as AutoMultimodalRegressor,
)
from .neural_network import (
    MultimodalNetClassifier as MultimodalNetClassifier,
    MultimodalNetMultiTask as MultimodalNetMultiTask,
    MultimodalNetRegressor as MultimodalNetRegressor,
)
from .retrieval import CrossModalRetriever as CrossModalRetriever, ZeroShotClassifier as ZeroShotClassifier
from .store import EmbeddingStore as EmbeddingStore

__version__: str
