"""A strict validator of alert records for readers that trust nobody.

The schema's own tools let missing keys (filled by defaults), extra keys, NaN and wrong ranges pass; here none does.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from sys import float_info
from typing import Any, Final

from alerts.schema import alert_schema
from core.errors import RejectedInputError

Check = Callable[[Any, str], None]

_INTEGER_BITS: Final = {"int": 31, "long": 63}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST_MICROS: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_MICROS: Final = (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LARGEST: Final = {"float": float.fromhex("0x1.fffffep127"), "double": float_info.max}


def check_alert(record: Mapping[str, Any]) -> None:
    """Raise ``RejectedInputError`` (code ``invalid_alert``) unless the record is exactly what the schema says.

    No key missing or extra, anywhere; types and integer ranges exact; floats finite; the triggering source's id is the
    alert's.
    """
    _alert_check()(record, "alert")
    if record["diaSource"]["diaSourceId"] != record["diaSourceId"]:
        raise _invalid("alert.diaSourceId", "is not the triggering source's")


@cache
def _alert_check() -> Check:
    return _compile(alert_schema(), {})


def _invalid(where: str, what: str) -> RejectedInputError:
    return RejectedInputError(f"{where} {what}", code="invalid_alert", field=where)


def _compile(schema: Any, named: dict[str, Check]) -> Check:
    """The check of one schema node; ``named`` holds those of records met before."""
    if isinstance(schema, list):
        return _union(schema, named)
    if isinstance(schema, str):
        return named.get(schema) or _primitive(schema)
    if schema["type"] == "record":
        named[schema["name"]] = check = _record(schema, named)
        return check
    if schema["type"] == "array":
        return _array(_compile(schema["items"], named))
    if schema.get("logicalType") == "timestamp-micros":
        return _timestamp
    return _compile(schema["type"], named)


def _record(schema: Any, named: dict[str, Check]) -> Check:
    fields = {field["name"]: _compile(field["type"], named) for field in schema["fields"]}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _invalid(where, "is not a record")
        if value.keys() != fields.keys():
            missing, extra = sorted(fields.keys() - value.keys()), sorted(map(str, value.keys() - fields.keys()))
            raise _invalid(where, f"lacks {missing}, has besides {extra}")
        for name, check_field in fields.items():
            check_field(value[name], f"{where}.{name}")

    return check


def _union(schema: list[Any], named: dict[str, Check]) -> Check:
    null, other = schema
    assert null == "null"
    check_other = _compile(other, named)

    def check(value: Any, where: str) -> None:
        if value is not None:
            check_other(value, where)

    return check


def _array(check_item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise _invalid(where, "is not a list")
        for item in value:
            check_item(item, where)

    return check


def _timestamp(value: Any, where: str) -> None:
    """A time, or its microseconds: no reader makes one outside the years 1 to 9999."""
    if isinstance(value, datetime):
        return
    _primitive("long")(value, where)
    if not _FIRST_MICROS <= value <= _LAST_MICROS:
        raise _invalid(where, f"is no time of the years 1 to 9999: {value!r}")


def _string(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise _invalid(where, f"is no string: {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _invalid(where, "holds half of a surrogate pair") from error


@cache
def _primitive(name: str) -> Check:
    if name in _INTEGER_BITS:
        limit = 1 << _INTEGER_BITS[name]

        def check_integer(value: Any, where: str) -> None:
            if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
                raise _invalid(where, f"is no {name}: {value!r}")

        return check_integer
    if name in ("float", "double"):
        most = _LARGEST[name]

        def check_real(value: Any, where: str) -> None:
            if not isinstance(value, float) or not -most <= value <= most:
                raise _invalid(where, f"is no finite {name}: {value!r}")

        return check_real
    if name == "string":
        return _string
    kind = {"boolean": bool, "bytes": bytes}[name]

    def check_kind(value: Any, where: str) -> None:
        if not isinstance(value, kind):
            raise _invalid(where, f"is no {name}: {type(value).__name__}")

    return check_kind
