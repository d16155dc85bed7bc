"""Layers of a graph that torch.export made of a model: a flat list of operations, in which no module is called."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.fx import GraphModule, Node


class Taps:
    """Taps in the exported graphs of a model, one for each layer of which a graph holds the operations but no call.

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
            local = {layer: layer.removeprefix(f"{prefix}." if prefix else "") for layer in layers}
            outputs = {layer: _output(graph, name) for layer, name in local.items() if layer not in self.modules}
            for layer, node in outputs.items():  # all found before the first tap, which belongs to no module
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
        """Make the graphs what they were. Twice is harmless."""
        placed, self._placed = self._placed, []
        for graph, tapped in placed:
            tapped.replace_all_uses_with(tapped.all_input_nodes[0])
            graph.graph.erase_node(tapped)
            graph.delete_submodule(str(tapped.target))
            graph.recompile()


def _output(graph: GraphModule, name: str) -> Node | None:
    """The operation that gives the output of a module; None where the graph calls it, or knows nothing of it.

    It is the first in the module whose value is used outside of it: the sequence, say, and not the last state, of an
    ``nn.GRU``.
    """
    nodes = [node for node in graph.graph.nodes if node.op in ("call_function", "call_module", "call_method")]
    if any(node.op == "call_module" and node.target == name for node in nodes):
        return None
    inside = [node for node in nodes if name in _places(node)]
    going_out = (node for node in inside if any(user not in inside for user in node.users))
    return next((node for node in going_out if isinstance(node.meta.get("val"), Tensor)), None)


def _places(node: Node) -> list[str]:
    """The names of the modules that an operation stood in."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
