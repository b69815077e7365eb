"""CRA: an agent proposes, the runtime decides and records."""

from cra.errors import (
    ActionDenied,
    ActionFailed,
    ActionTimeout,
    ApprovalRequired,
    AtlasInvalid,
    CRAError,
    InvalidInput,
    InvalidParameters,
    LimitExceeded,
    ResolutionRequired,
    StorageError,
)
from cra.protocol.carp import ExecuteResponse, Request, Resolution
from cra.protocol.fields import RiskTier
from cra.protocol.trace import ChainVerification, Event, Trace
from cra.runtime._base import Simulation, verify_trace
from cra.runtime.config import RuntimeConfig
from cra.runtime.executors import ExecutionContext
from cra.runtime.sync import CRARuntime

__all__ = [
    "ActionDenied",
    "ActionFailed",
    "ActionTimeout",
    "ApprovalRequired",
    "AtlasInvalid",
    "CRAError",
    "CRARuntime",
    "ChainVerification",
    "Event",
    "ExecuteResponse",
    "ExecutionContext",
    "InvalidInput",
    "InvalidParameters",
    "LimitExceeded",
    "Request",
    "Resolution",
    "ResolutionRequired",
    "RiskTier",
    "RuntimeConfig",
    "Simulation",
    "StorageError",
    "Trace",
    "verify_trace",
]
