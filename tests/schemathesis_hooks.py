"""What schemathesis does not know by itself; loaded by it."""

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def send_as_it_is(_context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
