"""Which column of the history belongs to which VM or host, with reuse of the columns of those long gone."""

import json
import os
from pathlib import Path

FORMAT = "rebalancerd-slots"
VERSION = 1


class SlotIndexError(Exception):
    """The index file cannot be understood; the message says why."""


class SlotIndex:
    """Ids to slots 0, 1, 2, …, kept in a JSON file. ``seen`` is in epoch seconds. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Read the file, or begin empty if it is absent. Raises SlotIndexError, OSError."""
        self._path = path
        self._slots: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        if path.exists():
            self._read()
        used = set(self._slots.values())
        self._free = sorted(set(range(max(used, default=-1) + 1)) - used, reverse=True)
        self._end = max(used, default=-1) + 1

    def _read(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["version"] != VERSION:
                raise SlotIndexError(f"{self._path} has format {content['format']!r} version {content['version']!r}")
            for name, (slot, seen) in content["slots"].items():
                if not isinstance(slot, int) or isinstance(slot, bool) or slot < 0:
                    raise SlotIndexError(f"{self._path} gives {name[:60]!r} the slot {slot!r}")
                self._slots[name], self._seen[name] = slot, float(seen)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SlotIndexError(f"{self._path} cannot be read: {type(error).__name__}: {error}") from error
        if len(set(self._slots.values())) != len(self._slots):
            raise SlotIndexError(f"{self._path} gives one slot to two")

    @property
    def end(self) -> int:
        """One more than the highest slot in use."""
        return self._end

    def ids(self) -> tuple[str, ...]:
        """All ids, in order."""
        return tuple(sorted(self._slots))

    def slot(self, name: str) -> int:
        """The slot of that id. Raises KeyError."""
        return self._slots[name]

    def get(self, name: str) -> int | None:
        """The slot of that id, None if it has none."""
        return self._slots.get(name)

    def touch(self, names: set[str], now: float) -> list[int]:
        """Note that these were seen; gives slots to new ones and returns those, which still hold another's values."""
        fresh = []
        for name in sorted(names - self._slots.keys()):
            if self._free:
                slot = self._free.pop()
            else:
                slot, self._end = self._end, self._end + 1
            self._slots[name] = slot
            fresh.append(slot)
        self._seen.update(dict.fromkeys(names, now))
        return fresh

    def forget_before(self, instant: float) -> bool:
        """Free the slots of those not seen since; returns whether there were any."""
        gone = [name for name, seen in self._seen.items() if seen < instant]
        for name in gone:
            self._free.append(self._slots.pop(name))
            del self._seen[name]
        return bool(gone)

    def save(self) -> None:
        """Write the file so that it is either the old one or the new one, whatever happens."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "slots": {name: [slot, self._seen[name]] for name, slot in self._slots.items()},
        }
        part = self._path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
