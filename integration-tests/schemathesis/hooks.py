"""What JSON Schema cannot say of a request, so that only what the document allows is taken for allowed."""

import gzip
import json

import schemathesis

NAME_BYTES_MAX = 255
NAMES = ("topic", "event_id", "source")
