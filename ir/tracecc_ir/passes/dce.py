"""Dead code elimination."""

from __future__ import annotations

from tracecc_ir.graph import HOLDERS, Builder, Graph, Node, Update, map_regions


def dce(graph: Graph) -> Graph:
    """Leaves out nodes that neither an output nor an update needs.

    Before::

        graph main(%x: f32[3]) {
          %a = exp(%x) : f32[3]
          %b = sin(%x) : f32[3]
          return %a
        }

    After::

        graph main(%x: f32[3]) {
          %a = exp(%x) : f32[3]
          return %a
        }
    """
    needed = {v.node for v in graph.results()}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(v.node for v in node.inputs)
    if all(n in needed and n.op.kind not in HOLDERS for n in graph.nodes):
        return graph
    b = Builder(graph.name)
    values = {v: b.input(v.type, v.name) for v in graph.inputs}
    for s in graph.state:
        values[s.value] = b.state(s.value.type, s.label, s.value.name)
    for node in graph.nodes:
        if node not in needed:
            continue
        types, names = [v.type for v in node.outputs], [v.name for v in node.outputs]
        attrs, inputs = map_regions(node, dce), [values[v] for v in node.inputs]
        made = Node(node.op, inputs, attrs, types, names, node.loc, node.why)
        values.update(zip(node.outputs, b.append(made), strict=True))
    b.graph.outputs = [values[v] for v in graph.outputs]
    b.graph.updates = [Update(values[u.state], values[u.value]) for u in graph.updates]
    return b.graph
