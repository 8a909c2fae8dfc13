"""What the site reads of jdl's source: docstrings as Markdown, signatures of generated classes."""

import re

import griffe

GENERATED = ("Module", "NamedTuple", "PyTreeNode")
"""Base classes that write `__init__` from the annotated attributes."""

EXAMPLE = re.compile(r"^( *)>>> .*\n(?:\1\S.*\n|\1 +\S.*\n)*", re.M)


def fence_examples(text: str) -> str:
    """Put every `>>>` example of a docstring into a fence."""

    def fenced(match: re.Match[str]) -> str:
        indent = match[1]
        code = re.sub(r"  # doctest:.*", "", match[0])
        return f"{indent}```pycon\n{code}{indent}```\n"

    return EXAMPLE.sub(fenced, text + "\n").rstrip("\n")


def is_generated(cls: griffe.Class) -> bool:
    """Whether a class gets its `__init__` from its attributes, in a way that griffe cannot see."""
    names = [str(base).rpartition(".")[2] for base in cls.bases]
    decorators = [str(each.value) for each in cls.decorators]
    return any(name in GENERATED for name in names) or "struct.dataclass" in decorators


def add_init(cls: griffe.Class) -> None:
    """Give a class the `__init__` that its base class or decorator writes at run time."""
    parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
    for name, member in cls.members.items():
        if member.is_attribute and member.annotation and "property" not in member.labels:
            parameters.append(
                griffe.Parameter(
                    name,
                    annotation=member.annotation,
                    default=member.value,
                    kind=griffe.ParameterKind.positional_or_keyword,
                )
            )
    init = griffe.Function(
        "__init__", lineno=cls.lineno, parameters=griffe.Parameters(*parameters), parent=cls
    )
    cls.set_member("__init__", init)


class Docstrings(griffe.Extension):
    """Prepares a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        """Walk all objects of the package."""
        left: list[griffe.Object] = [pkg]
        while left:
            obj = left.pop()
            if obj.docstring is not None:
                obj.docstring.value = fence_examples(obj.docstring.value)
            if obj.is_class and "__init__" not in obj.members and is_generated(obj):
                add_init(obj)
            left += [each for each in obj.members.values() if not each.is_alias]
