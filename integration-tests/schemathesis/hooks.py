"""What JSON Schema cannot say of a request: so that what is called valid is what the document calls valid, in its words."""

import datetime
import gzip
import json

import schemathesis
import zstandard
from schemathesis.openapi.checks import RejectedPositiveData

LINES = "application/x-ndjson"
# The rule is in bytes of UTF-8, and a schema counts characters.
NAME_BYTES_MAX = 255
HEADER_NAME_BYTES_MAX = 128
HEADERS_BYTES_MAX = 8 * 1024
NAMES = ("topic", "event_id", "source", "prefix", "after")
TIMES = ("timestamp", "since", "until")


# Any text may be preferred; these mean something.
PREFERENCES = ("respond-async", "handling=lenient", "return=representation", "respond-async, handling=lenient")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Lines are made of events, and not of any text; and what is preferred is mostly what the service knows."""
    publish = raw_schema["paths"]["/publish"]["post"]
    (prefer,) = (parameter for parameter in publish["parameters"] if parameter["name"] == "Prefer")
    prefer["schema"] = {"anyOf": [{"enum": list(PREFERENCES)}, prefer["schema"]]}
    body = publish["requestBody"]["content"][LINES]
    body["schema"] = {"type": "array", "items": {"$ref": "#/components/schemas/Event"}}
    body["example"] = [json.loads(line) for line in body["example"].splitlines()]


def compressed(context, text):
    """The body as its Content-Encoding says."""
    coding = (context.case.headers or {}).get("Content-Encoding")
    if coding == "gzip":
        return gzip.compress(text)
    if coding == "zstd":
        return zstandard.compress(text)
    return text


@schemathesis.serializer("application/json")
def json_body(context, value):
    # What is not JSON comes as bytes.
    return compressed(context, value if isinstance(value, bytes) else json.dumps(value).encode())


@schemathesis.serializer(LINES)
def lines_body(context, value):
    lines = value if isinstance(value, list) else [value]
    text = value if isinstance(value, bytes) else "\n".join(map(json.dumps, lines)).encode()
    return compressed(context, text)


@schemathesis.deserializer(LINES)
def lines_answer(context, response):
    """The answer as text, each line of which is an object."""
    text = response.content.decode()
    for line in text.split("\n")[:-1]:
        if not isinstance(json.loads(line), dict):
            raise ValueError(f"no object: {line}")
    return text


@schemathesis.hook
def map_case(context, case):
    """Makes a walk of a valid query that would be refused because it has an offset, or another direction."""
    if case.meta is not None and case.meta.generation.mode.is_positive and "after" in (case.query or {}):
        case.query = {name: value for name, value in case.query.items() if name not in ("offset", "order")}
    return case


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether a failure is one: to refuse what breaks a rule that stands in the document's words alone is right."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    # A cursor may be one, and none that this log has given out.
    is_unknown = response.status_code == 410 and "after" in (case.query or {})
    return not is_unknown and keeps_the_rules(case)


def keeps_the_rules(case):
    query = case.query or {}
    # A walk has no offset, and one direction.
    if "after" in query and ("offset" in query or query.get("order") == "desc"):
        return False
    body = case.body
    events = body.get("events", [body]) if isinstance(body, dict) else body
    events = [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []
    return all(are_in_range(members) for members in [query, case.path_parameters or {}, *events])


def are_in_range(members):
    """Whether the names and headers of an event or a query are short enough, and its times in the years 1 to 9999 of UTC."""
    names = (members[name] for name in NAMES if isinstance(members.get(name), str))
    times = (members[time] for time in TIMES if isinstance(members.get(time), str))
    headers = members.get("headers")
    headers = headers.items() if isinstance(headers, dict) else []
    texts = [(name.encode(), value.encode()) for name, value in headers if isinstance(value, str)]
    return (
        all(len(name.encode()) <= NAME_BYTES_MAX for name in names)
        and all(map(is_in_range, times))
        and all(len(name) <= HEADER_NAME_BYTES_MAX for name, _ in texts)
        and sum(len(name) + len(value) for name, value in texts) <= HEADERS_BYTES_MAX
    )


def is_in_range(time):
    try:
        datetime.datetime.fromisoformat(time).astimezone(datetime.timezone.utc)
    except (OverflowError, ValueError):
        return False
    return True
