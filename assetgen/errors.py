"""Every error a user can meet, with its reason code; imports nothing of ours.

Each error says what was given, what is allowed and what to do. The command line prints it as two lines, the server
sends the same object as a rich gRPC status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class AssetgenError(Exception):
    """An error meant for the user.

    Attributes:
        reason: stable code for machines, matching ``[A-Z][A-Z0-9_]+[A-Z0-9]``.
        status: name of the gRPC status code that carries it.
        message: what was given and what is allowed, one sentence.
        hint: what to do next; may be empty.
        field: path of the offending request field, such as ``parameters[truncation]``; may be empty.
        retry_after_s: seconds after which trying again makes sense; ``None`` when it does not.
        metadata: every changing part of the message, for machines.
    """

    reason: ClassVar[str] = "INTERNAL"
    status: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        field: str = "",
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})


class FieldInvalid(AssetgenError):
    """A field of a request is outside what the model or the server allows."""

    reason = "FIELD_INVALID"
    status = "INVALID_ARGUMENT"


class ImageInvalid(AssetgenError):
    """A picture cannot be decoded or is larger than allowed."""

    reason = "IMAGE_INVALID"
    status = "INVALID_ARGUMENT"


class ModelNotFound(AssetgenError):
    """No model of that id is served."""

    reason = "MODEL_NOT_FOUND"
    status = "NOT_FOUND"


class ModelDigestMismatch(AssetgenError):
    """The request pins weights that the server does not have."""

    reason = "MODEL_DIGEST_MISMATCH"
    status = "FAILED_PRECONDITION"


class JobNotFound(AssetgenError):
    """There is no job of that id, or no longer, or not for this caller."""

    reason = "JOB_NOT_FOUND"
    status = "NOT_FOUND"


class JobIdTaken(AssetgenError):
    """The id of a job was used for another request."""

    reason = "JOB_ID_TAKEN"
    status = "ALREADY_EXISTS"


class QueueFull(AssetgenError):
    """The server has as much work as it accepts."""

    reason = "QUEUE_FULL"
    status = "RESOURCE_EXHAUSTED"


class QuotaExceeded(AssetgenError):
    """A caller asks for more than it may have."""

    reason = "QUOTA_EXCEEDED"
    status = "RESOURCE_EXHAUSTED"


class Superseded(AssetgenError):
    """A newer call of the same view took this one's place."""

    reason = "SUPERSEDED"
    status = "ABORTED"


class TokenInvalid(AssetgenError):
    """The call carries no token, or one that the server does not know."""

    reason = "TOKEN_INVALID"
    status = "UNAUTHENTICATED"


class DeadlineTooShort(AssetgenError):
    """The deadline of a call passed, or cannot be met."""

    reason = "DEADLINE_TOO_SHORT"
    status = "DEADLINE_EXCEEDED"


class Draining(AssetgenError):
    """The server is shutting down and takes no new work."""

    reason = "DRAINING"
    status = "UNAVAILABLE"


class WorkerLost(AssetgenError):
    """The server or its worker went away while a call ran."""

    reason = "WORKER_LOST"
    status = "UNAVAILABLE"


class TransferDamaged(AssetgenError):
    """What arrived is not what the server announced."""

    reason = "TRANSFER_DAMAGED"
    status = "DATA_LOSS"


class Cancelled(AssetgenError):
    """The caller gave up."""

    reason = "CANCELLED"
    status = "CANCELLED"


class PackageInvalid(AssetgenError):
    """A model package is incomplete, altered or hostile."""

    reason = "PACKAGE_INVALID"
    status = "FAILED_PRECONDITION"


class PolicyViolated(AssetgenError):
    """An ONNX graph holds what a package must not hold."""

    HINT: ClassVar[str] = "Export the model again with `assetgen export`; foreign graphs are not served."
    reason = "POLICY_VIOLATED"
    status = "FAILED_PRECONDITION"


class DataInvalid(AssetgenError):
    """A training file or data folder cannot be used."""

    reason = "DATA_INVALID"
    status = "FAILED_PRECONDITION"


class ConfigInvalid(AssetgenError):
    """A recipe, an option or an environment variable is wrong."""

    reason = "CONFIG_INVALID"
    status = "INVALID_ARGUMENT"


class CheckpointInvalid(AssetgenError):
    """A run folder or checkpoint cannot be resumed or exported."""

    reason = "CHECKPOINT_INVALID"
    status = "FAILED_PRECONDITION"


class ParityFailed(AssetgenError):
    """An exported graph does not compute what the network computes."""

    reason = "PARITY_FAILED"
    status = "FAILED_PRECONDITION"


class RuntimeMissing(AssetgenError):
    """A package or device that the command needs is absent, doubled or broken."""

    reason = "RUNTIME_MISSING"
    status = "FAILED_PRECONDITION"


class AddressUnusable(AssetgenError):
    """The server cannot listen where it was told to."""

    reason = "ADDRESS_UNUSABLE"
    status = "FAILED_PRECONDITION"


class OutputUnwritable(AssetgenError):
    """A result cannot be written: disk full, no permission, not a folder."""

    reason = "OUTPUT_UNWRITABLE"
    status = "FAILED_PRECONDITION"


class InternalError(AssetgenError):
    """A fault of ours; details stand in the server's log only."""
