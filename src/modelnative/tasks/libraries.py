"""Names of tasks that other things are made of: `gymnasium:CartPole-v1`, `arithmetic+recall`."""

from __future__ import annotations

# Of a library, what makes its tasks: called with the rest of the name and the options.
LIBRARIES = {"gymnasium": "modelnative.tasks.gymnasium.task:GymnasiumTask"}
MIXTURE = "modelnative.tasks.mixture.task:NamedMixture"  # called with the whole name and the options


def library_of(name: object) -> str:
    """Return the library that a task's name refers to; empty if it refers to none.

    Example:
        >>> library_of("gymnasium:CartPole-v1"), library_of("arithmetic")
        ('gymnasium', '')
    """
    library, colon, _ = name.partition(":") if isinstance(name, str) else ("", "", "")
    return library if colon and library in LIBRARIES else ""


def maker_of(name: object) -> tuple[str, str] | None:
    """Return what makes a task of such a name, as `module:Class`, and its first argument; None for other names.

    Example:
        >>> maker_of("arithmetic+recall")
        ('modelnative.tasks.mixture.task:NamedMixture', 'arithmetic+recall')
    """
    if not isinstance(name, str):
        return None
    if library := library_of(name):
        return LIBRARIES[library], name.partition(":")[2]
    return (MIXTURE, name) if "+" in name and ":" not in name else None


def module_of(name: str) -> str:
    """Return the module whose code a name would run; empty if it is of this library or of a known one.

    Example:
        >>> module_of("mytasks:MyTask"), module_of("gymnasium:CartPole-v1"), module_of("gymnasium:mytasks:My-v0")
        ('mytasks', '', 'mytasks')
    """
    name = name.partition(":")[2] if library_of(name) else name
    module, colon, _ = name.partition(":")
    return module if colon else ""
