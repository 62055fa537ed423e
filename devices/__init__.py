"""The world live over MQTT: the floor between the application and the simulated world.

Nothing lives here yet. It may import ``sim`` and ``models``, and hands records with the same
columns to the application.
"""
