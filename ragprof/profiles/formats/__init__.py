"""File formats of profiles, one module each; a module in this folder is a format, nothing else is.

A format module has

- ``TITLE``, for people; ``LOOKS_FOR``, what it is told by; ``SUFFIXES``, of file names;
- ``recognises(content) -> bool``: told from the content, without reading all of it as a profile;
- ``read(content) -> list[Profile]``: raises `ProfileError` naming the line or field at fault;
- ``write(profile) -> bytes`` where the format is written, with ``CARRIES``, what it can hold;
- ``NEEDS_TRUST = True`` where reading a file could do harm; ``ALPHA = True`` where the format may
  still change.

The functions are looked up by `ragprof.profiles.registry`.
"""
