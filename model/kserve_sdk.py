"""The one import of KServe's SDK.

`kserve.model_server` parses the command line when it is imported, with abbreviations: our flags
would be taken for its own. It sees an empty command line instead. Main thread, at import.
"""

import sys

_arguments, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer
    from kserve.errors import ModelNotFound as KServeModelNotFound
    from kserve.model_repository import ModelRepository
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.rest.v1_endpoints import V1Endpoints
    from kserve.protocol.rest.v2_endpoints import V2Endpoints
finally:
    sys.argv = _arguments

__all__ = [
    "DataPlane",
    "InferInput",
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "KServeModelNotFound",
    "Model",
    "ModelRepository",
    "ModelServer",
    "V1Endpoints",
    "V2Endpoints",
]
