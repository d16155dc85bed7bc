"""Layers of a graph that torch.export made of a model: a flat list of operations in place of module calls."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.fx import GraphModule, Node


class Taps:
    """Taps in the exported graphs of a model, one for each layer that a graph has dissolved into operations.

    A tap is the identity, put behind the operation that gives a layer's output, for a hook to be set on.

    Args:
        modules: the modules of the model by name, the graphs among them.
        layers: names of the layers to tap; those that are called as modules are left alone.

    Attributes:
        modules: layer → its tap, which a forward hook can be set on.
    """

    def __init__(self, modules: dict[str, nn.Module], layers: Iterable[str]) -> None:
        self.modules: dict[str, nn.Module] = {}
        self._placed: list[tuple[GraphModule, Node]] = []
        layers = list(layers)
        for prefix, graph in modules.items():
            if not isinstance(graph, GraphModule):
                continue
            start = f"{prefix}." if prefix else ""
            own = [layer for layer in layers if layer.startswith(start) and layer not in self.modules]
            outputs = {layer: _output(graph, layer.removeprefix(start)) for layer in own}
            for layer, node in outputs.items():  # all found before the first tap, which belongs to the graph alone
                if node is not None:
                    self._place(graph, layer, node)

    def _place(self, graph: GraphModule, layer: str, node: Node) -> None:
        self.modules[layer] = tap = nn.Identity()
        name = f"_tap_{len(self._placed)}"
        graph.add_submodule(name, tap)
        with graph.graph.inserting_after(node):
            tapped = graph.graph.call_module(name, (node,))
        node.replace_all_uses_with(tapped, delete_user_cb=lambda user: user is not tapped)
        graph.recompile()
        self._placed.append((graph, tapped))

    def remove(self) -> None:
        """Restore the graphs. Idempotent."""
        placed, self._placed = self._placed, []
        for graph, tapped in placed:
            tapped.replace_all_uses_with(tapped.all_input_nodes[0])
            graph.graph.erase_node(tapped)
            graph.delete_submodule(str(tapped.target))
            graph.recompile()


def _output(graph: GraphModule, name: str) -> Node | None:
    """The operation that gives the output of a module; None where the graph calls it, or lacks it.

    It is the first in the module with a use of its value outside of it: the sequence, say, rather than the last state,
    of an ``nn.GRU``. Of several calls of a module it is that of the last.
    """
    nodes = [node for node in graph.graph.nodes if node.op in ("call_function", "call_module", "call_method")]
    if any(node.op == "call_module" and node.target == name for node in nodes):
        return None
    calls: dict[str, list[Node]] = {}
    for node in nodes:
        for call, (path, _) in _stack(node).items():
            if path == name and isinstance(node.meta.get("val"), (Tensor, tuple, list)):
                calls.setdefault(call, []).append(node)
    inside = calls[list(calls)[-1]] if calls else []
    going_out = (node for node in inside if any(user not in inside for user in node.users))
    return next((node for node in going_out if isinstance(node.meta.get("val"), Tensor)), None)


def _stack(node: Node) -> dict[str, tuple[str, str]]:
    """The modules that an operation stood in: a key for each call → name and class."""
    stack: dict[str, tuple[str, str]] = node.meta.get("nn_module_stack", {})
    return stack


def exported_kinds(modules: dict[str, nn.Module]) -> dict[str, str]:
    """The modules that became parts of exported graphs, by name, and the classes they had."""
    found: dict[str, str] = {}
    for prefix, graph in modules.items():
        if isinstance(graph, GraphModule):
            stacks = (_stack(node) for node in graph.graph.nodes)
            found |= {
                f"{prefix}.{path}" if prefix else path: str(kind)
                for stack in stacks
                for path, kind in stack.values()
                if path
            }
    return found
