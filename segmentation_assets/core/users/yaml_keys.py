"""What YAML passes over in silence, and people should be told.

What belongs here: keys that a reader of YAML would lose. What does not: what the keys mean (rules, personas).
"""

import yaml

Place = tuple[int | str, ...]
"""Keys and positions from the top of a file."""


def keys_given_twice(top: yaml.Node | None) -> list[Place]:
    """Where a key stands twice in one mapping: YAML keeps the last, and what the first one said would be lost.

    Args:
        top: as ``yaml.compose`` makes it; None where there is no text.
    """
    found: list[Place] = []
    seen: set[int] = set()
    left: list[tuple[Place, yaml.Node | None]] = [((), top)]
    while left:
        place, node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            found += [(*place, key) for key in dict.fromkeys(keys) if keys.count(key) > 1]
            # Of a key that stands twice the last one, as YAML does: what is found is in what it reads.
            values = {key: value for key, (_, value) in zip(keys, node.value, strict=True)}
            left += [((*place, key), value) for key, value in values.items()]
        elif isinstance(node, yaml.SequenceNode):
            left += [((*place, position), value) for position, value in enumerate(node.value)]
    return found
