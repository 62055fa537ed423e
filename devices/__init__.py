"""The world live over MQTT: nodes that serve real networks, and devices that ask them.

It may import ``sim`` and ``models``, and leaves records with the same columns as the simulator.
CONTRIBUTING.md maps its modules; ``docs/protocol.md`` is the wire protocol.
"""
