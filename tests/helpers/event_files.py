"""Read the event files of TensorBoard, as the format says: length, its checksum, an event, its checksum."""

import struct
from pathlib import Path
from typing import Any


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs of each name in all event files of a folder, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event: Any = Event.FromString(content[place + 12 : place + 12 + length])
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
            place += 12 + length + 4
    return found
