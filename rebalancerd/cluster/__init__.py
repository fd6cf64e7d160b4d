"""The words every room shares: frozen values with units in their names, no I/O, nothing of ours imported.

Conventions: base units inside (seconds, bytes, cores), wall-clock instants are seconds since the Unix epoch in UTC,
``None`` means unknown and is never read as zero. A *reference core* is one core of a host with speed factor 1.
"""
