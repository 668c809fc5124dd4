"""The free memory of this node."""


def available_bytes():
    """Return the free memory of this node in bytes; 2**62 if /proc does not tell it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 2**62
