"""Reading a profile file of any known format."""

from __future__ import annotations

import math
from pathlib import Path

from ragprof.profiles import registry
from ragprof.profiles.combine import by_value_types, combined
from ragprof.profiles.content import MOST_BYTES, Content
from ragprof.profiles.model import Profile, ProfileError


def read_profile(
    path: str | Path,
    *,
    profile: str | int | None = None,
    format: str | None = None,
    trusted: bool = False,
    max_bytes: int = MOST_BYTES,
) -> Profile:
    """The profile in a file; its format is found from the content, then from the name.

    A file with several profiles (a thread each, say) gives one Profile of all their samples, with
    the label ``profile`` telling them apart; where they measure different things, those that
    measure the same as the first. ``profile`` chooses one of them by its name or number (from 0).
    See `read_profiles` for the rest.
    """
    profiles = read_profiles(path, format=format, trusted=trusted, max_bytes=max_bytes)
    if profile is not None:
        return _chosen(Path(path), profiles, profile)
    first, *others = by_value_types(profiles)
    whole = combined(first)
    whole = whole if whole.name else whole.named(_stem(Path(path).name))
    if not others:
        return whole
    kinds = "; ".join(
        f"{', '.join(kind.type for kind in group[0].value_types)} in "
        f"{', '.join(repr(one.name) for one in group)}"
        for group in others
    )
    return whole.named(whole.name, f"The file also has {kinds}: choose with profile=.")


def read_profiles(
    path: str | Path,
    *,
    format: str | None = None,
    trusted: bool = False,
    max_bytes: int = MOST_BYTES,
) -> list[Profile]:
    """The profiles in a file, in their order, each with a name; never an empty list.

    ``format`` names the format instead of finding it. ``trusted`` allows formats whose reading
    could do harm (pstats). ``max_bytes`` bounds the file, also unpacked. Raises `ProfileError`
    naming the file and the line or field at fault, or what was looked for.
    """
    try:
        return profiles_of(Content.of_file(path, max_bytes), format=format, trusted=trusted)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def profiles_of(
    content: Content, *, format: str | None = None, trusted: bool = False
) -> list[Profile]:
    """`read_profiles` of a content at hand."""
    if not content.data:
        raise ProfileError("it is empty: nothing was recorded, or the file was cut short.")
    chosen = registry.named(format) if format else registry.detected(content)
    if chosen.needs_trust and not trusted:
        raise ProfileError(
            f"{chosen.title} files can crash or mislead the program that reads them, so it is "
            "read only when you say that you trust it: trusted=True, or --trusted."
        )
    try:
        profiles = chosen.read(content)
    except ProfileError as error:
        raise ProfileError(f"in {chosen.title}, {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ProfileError(
            f"it is {chosen.title} with a part that is not as the format has it: {error!r}."
        ) from error
    except RecursionError as error:
        raise ProfileError(f"it is {chosen.title} that nests too deep.") from error
    if not profiles:
        raise ProfileError(f"it is {chosen.title} and has no profile in it: nothing was recorded.")
    for one in profiles:
        _finite(one)
    return [one if one.name else one.named(_stem(content.name)) for one in profiles]


def _stem(name: str) -> str:
    """The file name without its endings."""
    return name[:1] + name[1:].partition(".")[0]


def _finite(profile: Profile) -> None:
    for index, kind in enumerate(profile.value_types):
        if not math.isfinite(profile.total(index)):
            raise ProfileError(f"the sum of its {kind.type} is too large for a number.")


def _chosen(path: Path, profiles: list[Profile], profile: str | int) -> Profile:
    if isinstance(profile, int):
        fitting = profiles[profile : profile + 1] if profile >= 0 else []
    else:
        fitting = [one for one in profiles if one.name == profile]
    if not fitting:
        names = ", ".join(f"{index} {one.name!r}" for index, one in enumerate(profiles))
        raise ProfileError(f"{path} has no profile {profile!r}; it has {names}.")
    return fitting[0] if len(fitting) == 1 else combined(fitting)
