"""MQTT clients and brokers: addresses, connections, many clients on one loop."""
