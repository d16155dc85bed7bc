"""The directives ``public-names`` and ``parts``: the reference of what modules export, in the order of ``__all__``.

The names are written down once, in the package. Each is documented under the shortest path that it can be imported by,
and references by any longer path lead there.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from importlib import import_module
from typing import Any, TypeVar

from docutils import nodes
from docutils.statemachine import StringList
from pytorch_lightning import Callback
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode
from sphinx.util.parsing import nested_parse_to_nodes

PACKAGE = "lightning_ib"


def _is_shown(base: type) -> bool:
    """Whether a class that others are made from is documented, here or elsewhere."""
    own = base.__module__.startswith(f"{PACKAGE}.")
    return base is not object and (not own or base.__name__ in import_module(PACKAGE).__all__)


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def _described(module: str, name: str, value: Any) -> list[str]:
    """What the source says of a constant, or else what it is."""
    for other in [one for one in sys.modules if one.startswith(f"{module}.")]:
        found = ModuleAnalyzer.for_module(other).find_attr_docs().get(("", name))
        if found and getattr(sys.modules[other], name, None) is value:
            return [str(line) for line in found]
    return [f"``{value!r}``".replace("typing.", "")]


class PublicNames(SphinxDirective):
    """Document what a module exports: ``public-names:: module [subpackage]``, of a subpackage what comes from there.

    Constants and types, which do not know where they come from, belong to the subpackage ``types``.
    """

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The documentation of each name."""
        module = import_module(self.arguments[0])
        part = self.arguments[1] if len(self.arguments) > 1 else None
        short = import_module(PACKAGE).__all__
        lines = [f".. py:module:: {module.__name__}", ""] * (part in (None, "discrete"))
        for name in module.__all__:
            value = getattr(module, name)
            kind = _kind(value)
            home = "types" if kind == "data" else value.__module__.removeprefix(f"{module.__name__}.").split(".")[0]
            if part is None or part == home:
                path = f"{PACKAGE if name in short else module.__name__}.{name}"
                if kind == "data":
                    described = _described(module.__name__, name, value)
                    home = path.removesuffix(f".{name}")
                    lines += [
                        f".. py:data:: {name}",
                        f"   :module: {home}",
                        "",
                        *(f"   {line}" for line in described),
                        "",
                    ]
                    continue
                lines += [f".. auto{kind}:: {path}"]
                lines += ["   :members:"] * (kind == "class")
                inherits = kind == "class" and any(map(_is_shown, value.__bases__))
                lines += ["   :show-inheritance:"] * inherits
                lines += [""]
        if not lines:
            raise self.error(f"{module.__name__} exports nothing of {part}")
        return nested_parse_to_nodes(self.state, StringList(lines, self.arguments[0]), allow_section_headings=False)


class Parts(SphinxDirective):
    """Document names that no module exports, wherever they are: one name a line. Exported ones are passed over."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The documentation of each name."""
        package = import_module(PACKAGE)
        modules = [import_module(one.name) for one in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
        exported = {name for module in (package, *modules) for name in getattr(module, "__all__", ())}
        lines: list[str] = []
        for name in map(str.strip, self.content):
            if not name or name in exported:
                continue
            value = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
            if value is None:
                raise self.error(f"{PACKAGE} has no {name}")
            kind = _kind(value)
            if kind != "data":
                lines += [f".. auto{kind}:: {value.__module__}.{name}", *["   :members:"] * (kind == "class"), ""]
                continue
            home = next(module.__name__ for module in modules if _defines(module.__name__, name))
            lines += [f".. py:data:: {name}", f"   :module: {home}", ""]
            lines += [*(f"   {line}" for line in _described(PACKAGE, name, value)), ""]
        return nested_parse_to_nodes(self.state, StringList(lines, PACKAGE), allow_section_headings=False)


def _defines(module: str, name: str) -> bool:
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return name in analyzer.tagorder


def skip(app: Sphinx, what: str, name: str, member: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, which their docstrings list, and what Lightning and torch call themselves."""
    field = (inspect.getdoc(member) or "").startswith("Alias for field number")
    owner = str(getattr(member, "__qualname__", "")).partition(".")[0]
    return True if field or name == "extra_repr" or (owner.endswith("Callback") and hasattr(Callback, name)) else None


def show_init(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Show what a class is made from where its ``__new__`` takes anything; a named tuple lists its fields below."""
    if what == "class" and hasattr(obj, "_fields"):
        return "", None
    if what != "class" or not (signature or "").startswith("(*_"):
        return None
    given = inspect.signature(obj.__init__, eval_str=True)
    own = given.replace(parameters=list(given.parameters.values())[1:], return_annotation=inspect.Signature.empty)
    return stringify_signature(own, unqualified_typehints=True), None


def show_public_bases(app: Sphinx, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """Of the classes that one is made from, show those that are documented here or elsewhere."""
    bases[:] = filter(_is_shown, bases)


def _inherited_attributes(kind: type) -> list[str]:
    found: list[str] = []
    for base in kind.__mro__[1:]:
        section = re.search(
            r"^Attributes:\n(?:[ ]+.*\n?|\n)+", f"{inspect.cleandoc(base.__doc__ or '')}\n", re.MULTILINE
        )
        if section is not None and base.__module__.startswith(f"{PACKAGE}.") and not _is_shown(base):
            found += ["", *section[0].rstrip().splitlines(), ""]
    return found


def untyped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep a colon in a sentence from being read as the end of a type, which stands in the signature.

    A class also lists the attributes of the ones it is made from, where those have no documentation of their own.
    """
    if what == "class":
        lines += _inherited_attributes(obj)
    if what in ("attribute", "data", "property") and lines and lines[0]:
        lines[:1] = [f": {lines[0]}"]
    for number, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            indent = len(lines[number + 1]) - len(lines[number + 1].lstrip())
            lines[number + 1] = f"{' ' * indent}: {lines[number + 1].lstrip()}"


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Lead a reference by the path of a module to the public name, if there is exactly one of that name."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    if node.get("reftype") == "mod":  # of a module the nearest one around it
        while target not in objects and "." in target:
            target = target.rpartition(".")[0]
        if target == PACKAGE:
            return None
        entry = objects[target]
        return make_refnode(app.builder, str(node["refdoc"]), entry.docname, entry.node_id, content, target)
    if node.get("reftype") == "attr" and node.get("py:class"):  # listed in a docstring: to its class
        kind = getattr(import_module(str(node["py:module"])), str(node["py:class"]), None)
        if any(
            re.search(rf"^\s+{target}: ", base.__doc__ or "", re.MULTILINE) for base in getattr(kind, "__mro__", ())
        ):
            target = str(node["py:class"])
    parts = target.split(".")
    for length in (1, 2):  # a name, or a member of a class
        end = "." + ".".join(parts[-length:])
        found = {name: entry for name, entry in objects.items() if name.endswith(end) and not entry.aliased}
        if len(found) == 1:
            name, entry = found.popitem()
            return make_refnode(app.builder, str(node["refdoc"]), entry.docname, entry.node_id, content, name)
    try:
        value = getattr(import_module(".".join(parts[:-1])), parts[-1])
    except (ImportError, AttributeError, ValueError):
        return None
    return content if isinstance(value, TypeVar) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive and the resolver."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("parts", Parts)
    for field in PyObject.doc_field_types:
        if field.name == "variable":  # as the docstrings call them
            field.label = "Attributes"
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", show_init)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-process-docstring", untyped, priority=400)  # before napoleon reads it
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
