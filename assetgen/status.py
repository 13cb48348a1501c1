"""Between our errors and rich gRPC statuses (google.rpc), both ways; imports errors, protobuf but no gRPC."""

from __future__ import annotations

from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from assetgen import errors
from assetgen.errors import AssetgenError, FieldInvalid, InternalError, TransferDamaged, WorkerLost

DOMAIN = "assetgen"
# Statuses travel in metadata, which ends at 16 KiB; what a client sent must not make its own answer too large.
MAX_TEXT_BYTES = 600
MAX_VALUE_BYTES = 200


def _with_subclasses(known: type[AssetgenError]) -> list[type[AssetgenError]]:
    return [known, *(deeper for child in known.__subclasses__() for deeper in _with_subclasses(child))]


_CLASS_OF = {known.reason: known for known in _with_subclasses(AssetgenError) if known is not AssetgenError}


def status_from_error(error: AssetgenError) -> status_pb2.Status:
    """Code, message, ErrorInfo (with hint), BadRequest and RetryInfo where they belong."""
    metadata = {key: _cut(value, MAX_VALUE_BYTES) for key, value in error.metadata.items()}
    if error.hint:
        metadata["hint"] = _cut(error.hint, MAX_TEXT_BYTES)
    if error.field:
        metadata["field"] = _cut(error.field, MAX_VALUE_BYTES)
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.status == "INVALID_ARGUMENT":
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(error.field, MAX_VALUE_BYTES), description=_cut(error.message, MAX_TEXT_BYTES)
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE") and error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(_packed(retry))
    return status_pb2.Status(
        code=code_pb2.Code.Value(error.status), message=_cut(error.message, MAX_TEXT_BYTES), details=details
    )


def error_from_status(status: status_pb2.Status) -> AssetgenError | None:
    """The error that was sent; ``None`` when the status is not one of ours."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in _CLASS_OF:
        return None
    metadata = dict(info.metadata)
    hint, field = metadata.pop("hint", ""), metadata.pop("field", "")
    return _CLASS_OF[info.reason](
        status.message, hint=hint, field=field, retry_after_s=retry_after_s, metadata=metadata
    )


def error_from_reason(code: str, reason: str, message: str, **facts: Any) -> AssetgenError:
    """An error that was told of by its parts; of a reason that this version does not know, the message counts."""
    known = _CLASS_OF.get(reason)
    return known(message, **facts) if known else InternalError(f"{message} ({code}, {reason})", **facts)


def error_from_code(code: str, message: str, target: str) -> AssetgenError:
    """An error for a bare status: gRPC itself, a proxy, or a server of another make answered."""
    if code == "UNAVAILABLE":
        return WorkerLost(
            f"no assetgen server answers at {target}: {message}",
            hint="start one with `assetgen serve`, or check the address",
            retry_after_s=1.0,
        )
    if code == "DEADLINE_EXCEEDED":
        return errors.DeadlineTooShort("the call did not end within its deadline", hint="allow more time")
    if code == "CANCELLED":
        return errors.Cancelled("the call was cancelled")
    if code == "RESOURCE_EXHAUSTED":
        return FieldInvalid(f"the server at {target} refused the message: {message}", hint="send a smaller request")
    if code == "DATA_LOSS":
        return TransferDamaged(f"data from {target} was damaged: {message}")
    if code == "UNIMPLEMENTED":
        return WorkerLost(
            f"the server at {target} does not speak assetgen.v1: {message}", hint="check the address and its version"
        )
    return InternalError(f"the server at {target} failed with {code}: {message}", hint="see the log of the server")


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _cut(text: str, longest_bytes: int) -> str:
    data = text.encode()
    if len(data) <= longest_bytes:
        return text
    return data[: longest_bytes - 3].decode(errors="ignore") + "..."
